"""`zoo::sparse_conv`: convolution of spikes on the CPU, without multiplications.

    x = (torch.rand(8, 64, 32, 32) < 0.1).float().contiguous(memory_format=torch.channels_last)
    convolve(x, torch.randn(128, 64, 3, 3), None, *Geometry(padding=(1, 1))).shape      # torch.Size([8, 128, 32, 32])

Definition: st_utils/kernels/spike_conv/definition.py. A product with a spike is the weight or nothing, so a
convolution of spikes is a sum of weights, and the weight's gradient a sum of gradients. `cpu_forward.cpp` and
`cpu_weight.cpp` read spikes as bits, and counts of spikes (up to 255) as binary numbers; where few bits are set they
add a row for each, else a row of a table for each four bits, see products.h. dL/dx has no zeros to skip, and is torch's
dense product, as is all of a convolution whose input is neither spikes nor counts. Values are torch's within rounding:
only the order of the float32 sums differs. It does not depend on the number of threads, nor on the other images of the
batch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, c_int, c_int64, c_void_p
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils.flop_counter import register_flop_formula

from st_utils.kernels.common.compiler import library
from st_utils.kernels.common.eager import eager, eager_gradient
from st_utils.kernels.spike_conv import definition
from st_utils.kernels.spike_conv.definition import Geometry

# Multiplications of an image's dense product below which the calls around a kernel take most of the time. Of one image,
# so that its result does not depend on how many others there are.
LEAST = 2**17


def convolve_spikes(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """`convolve` with its gradient, as an operator: without the dispatcher's way through Python in eager mode."""
    return _run(x, weight, bias, *geometry)


def worthwhile(x: Tensor, weight: Tensor, stride: Sequence[int]) -> bool:
    """Whether a convolution is large enough for its zeros to matter."""
    return x.shape[2] * x.shape[3] * weight.numel() >= LEAST * prod(stride)


# A constant to torch.compile, which would trace through the compiler's cache otherwise.
@torch.compiler.assume_constant_result
def available() -> bool:
    """Whether the kernels are compiled, or can be now."""
    return forward_library() is not None and _weight_library() is not None


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """x `[N, C, H, W]`, weight `[C', C / groups, rows, columns]` -> `[N, C', H', W']`, float32, channels last."""
    geometry = Geometry(stride, padding, dilation, groups)
    out = _of_spikes(x, weight, bias, geometry)
    if out is None:
        out = definition.convolve(x, weight, bias, *geometry).contiguous(memory_format=torch.channels_last)
    return out


_convolve_op = torch.library.custom_op("zoo::sparse_conv", convolve, mutates_args=())


@_convolve_op.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
    return empty_out(x, weight, Geometry(*geometry))


def weight_gradient(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """dL/d weight, laid out like the weight, from grad = dL/d out."""
    geometry = Geometry(stride, padding, dilation, groups)
    grad_weight = _weight_of_spikes(grad, x, weight, geometry)
    if grad_weight is None:
        dense = dense_gradients(grad, x, weight, geometry, Wanted(weight=True)).weight
        grad_weight = torch.empty_like(weight).copy_(dense)
    return grad_weight


_weight_op = torch.library.custom_op("zoo::sparse_conv_weight", weight_gradient, mutates_args=())


@_weight_op.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, *geometry: Any) -> Tensor:
    return torch.empty_like(weight)


class Wanted(NamedTuple):
    """Which gradients are asked for."""

    x: bool = False
    weight: bool = False
    bias: bool = False


class Gradients(NamedTuple):
    """None where a gradient was not asked for."""

    x: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


def _save(ctx, inputs: tuple, output: Tensor) -> None:
    (x, weight, _), ctx.geometry = inputs[:3], Geometry(*inputs[3:])
    ctx.save_for_backward(x, weight)


def _differentiate(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    wanted = Wanted(*ctx.needs_input_grad[:3])
    no_geometry = (None,) * len(ctx.geometry)
    if is_in_torch_dispatch_mode(include_infra_modes=False):  # a counter around the backward pass alone
        return *dense_gradients(grad, x, weight, ctx.geometry, wanted), *no_geometry
    grad_x = dense_gradients(grad, x, weight, ctx.geometry, Wanted(x=True)).x if wanted.x else None
    grad_weight = _weight(grad, x, weight, *ctx.geometry) if wanted.weight else None
    return grad_x, grad_weight, grad.sum((0, 2, 3)) if wanted.bias else None, *no_geometry


def _save_all(ctx, inputs: tuple, output: Tensor) -> None:
    ctx.geometry = Geometry(*inputs[3:])
    ctx.save_for_backward(*inputs[:3])


def _differentiate_again(ctx, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    """Second derivatives: dL/d weight is linear in grad and in x, so each is a convolution with the cotangent."""
    grad, x, _ = ctx.saved_tensors
    grad_grad = definition.convolve(x, cotangent, None, *ctx.geometry)
    grad_x = dense_gradients(grad, x, cotangent, ctx.geometry, Wanted(x=True)).x
    return grad_grad, grad_x, None, *(None for _ in ctx.geometry)


_convolve_op.register_autograd(_differentiate, setup_context=_save)
_weight_op.register_autograd(_differentiate_again, setup_context=_save_all)


@register_flop_formula(torch.ops.zoo.sparse_conv)
def _(x: tuple[int, ...], weight: tuple[int, ...], *_: object, out_shape: tuple[int, ...], **__: object) -> int:
    """What FlopCounterMode counts for a compiled model: the dense product's multiplications and additions."""
    return 2 * prod(out_shape) * prod(weight[1:])


@register_flop_formula(torch.ops.zoo.sparse_conv_weight)
def _(grad: tuple[int, ...], x: tuple[int, ...], weight: tuple[int, ...], *_: object, **__: object) -> int:
    return 2 * prod(grad) * prod(weight[1:])


_run = eager(_convolve_op, convolve, _save, _differentiate)
_weight = eager_gradient(_weight_op, weight_gradient)


def _of_spikes(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor | None:
    """The convolution; None where x is neither spikes nor counts of them, or has so few that it does not pay."""
    if not (worthwhile(x, weight, geometry.stride) and x.is_contiguous(memory_format=torch.channels_last)):
        return None
    out, shape = empty_out(x, weight, geometry), shape_of(x, weight, geometry)
    ready, biases = packed(weight, shape), None if bias is None else bias.contiguous()
    found = forward_library().zoo_forward(
        *(x.data_ptr(), ready.data_ptr(), None if biases is None else biases.data_ptr()),
        *(out.data_ptr(), shape, torch.get_num_threads()),
    )
    return out if found else None


def _weight_of_spikes(grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor | None:
    """dL/d weight; None as above."""
    if not (worthwhile(x, weight, geometry.stride) and x.is_contiguous(memory_format=torch.channels_last)):
        return None
    grad, grad_weight = grad.contiguous(memory_format=torch.channels_last), torch.empty_like(weight)
    found = _weight_library().zoo_weight_gradient(
        *(x.data_ptr(), grad.data_ptr(), grad_weight.data_ptr(), _strides(grad_weight)),
        *(shape_of(x, weight, geometry), torch.get_num_threads()),
    )
    return grad_weight if found else None


def dense_gradients(grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, wanted: Wanted) -> Gradients:
    """torch's own gradients."""
    return Gradients(
        *torch.ops.aten.convolution_backward(
            *(grad, x, weight, [len(weight)], geometry.stride, geometry.padding, geometry.dilation),
            transposed=False,
            output_padding=[0, 0],
            groups=geometry.groups,
            output_mask=list(wanted),
        )
    )


def empty_out(x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """`[N, C', H', W']`, channels last in memory; no view, so that it may be changed in place."""
    shape = x.shape[0], len(weight), *out_size(x, weight, geometry)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def out_size(x: Tensor, weight: Tensor, geometry: Geometry) -> list[int]:
    """H' and W'."""
    sizes = zip(x.shape[2:], weight.shape[2:], *geometry[:3], strict=True)
    return [(size + 2 * padding - dilation * (k - 1) - 1) // s + 1 for size, k, s, padding, dilation in sizes]


def packed(
    weight: Tensor, shape: CShape, compiled: ctypes.CDLL | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """The weight in the order in which the kernel sums it; of another compiled library, in the numbers that it sums."""
    compiled = compiled or forward_library()
    packed = torch.empty(compiled.zoo_packed_size(shape) + 64 // dtype.itemsize, dtype=dtype)
    packed = packed[-packed.data_ptr() % 64 // dtype.itemsize :]  # from the next cache line on
    compiled.zoo_pack(weight.data_ptr(), _strides(weight), packed.data_ptr(), shape, torch.get_num_threads())
    return packed


class CShape(ctypes.Structure):
    """`struct Shape` of `shape.h`."""

    _fields_ = (
        *((n, c_int64) for n in ("images", "height", "width", "in_channels", "out", "rows", "columns")),
        *((n, c_int64 * 2) for n in ("stride", "padding", "dilation")),
        *((n, c_int64) for n in ("groups", "out_height", "out_width")),
    )


def shape_of(x: Tensor, weight: Tensor, geometry: Geometry) -> CShape:
    images, channels, height, width = x.shape
    out, _, rows, columns = weight.shape
    pairs = [(c_int64 * 2)(*pair) for pair in geometry[:3]]
    size = out_size(x, weight, geometry)
    return CShape(images, height, width, channels, out, rows, columns, *pairs, geometry.groups, *size)


def _strides(weight: Tensor) -> ctypes.Array:
    return (c_int64 * 4)(*weight.stride())


def forward_library(*flags: str) -> ctypes.CDLL | None:
    """The compiled cpu_forward.cpp; with further flags for the compiler, another library beside the one in use."""
    compiled = library("spike_conv/cpu_forward", *flags)
    if compiled and compiled.zoo_pack.argtypes is None:
        pointer, numbers, shape = c_void_p, POINTER(c_int64), POINTER(CShape)
        compiled.zoo_forward.argtypes = [pointer, pointer, pointer, pointer, shape, c_int]
        compiled.zoo_packed_size.argtypes, compiled.zoo_packed_size.restype = [shape], c_int64
        compiled.zoo_pack.argtypes, compiled.zoo_pack.restype = [pointer, numbers, pointer, shape, c_int], None
    return compiled


def _weight_library() -> ctypes.CDLL | None:
    compiled = library("spike_conv/cpu_weight")
    if compiled and compiled.zoo_weight_gradient.argtypes is None:
        pointer, numbers, shape = c_void_p, POINTER(c_int64), POINTER(CShape)
        compiled.zoo_weight_gradient.argtypes = [pointer, pointer, pointer, numbers, shape, c_int]
    return compiled
