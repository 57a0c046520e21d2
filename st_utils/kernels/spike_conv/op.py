"""`zoo::sparse_conv`: convolution of spikes by additions on the CPU, skipping the zeros.

    x = (torch.rand(8, 64, 32, 32) < 0.1).float().contiguous(memory_format=torch.channels_last)
    convolve(x, torch.randn(128, 64, 3, 3), None).shape          # [N, C', H, W]: torch.Size([8, 128, 32, 32])

Definition: st_utils/kernels/spike_conv/definition.py. A dense product multiplies by every zero of its input; `cpu.cpp`
lists the numbers that are not zero and adds up no more than their weights:

    out[o, p] = bias[o] + sum over the listed (c, q) of x[c, q] weight[o, c, q - p]
    dL/d weight[o, c, r] = sum over the listed (c, q) of x[c, q] dL/d out[o, q - r]

dL/dx has no zeros to skip, and is torch's dense product. Values are torch's within rounding, for any x: only the order
of the float32 sums differs. Where x is too dense to gain by it, the operator computes as torch does.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_int, c_int64, c_void_p
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils.flop_counter import register_flop_formula

from st_utils.kernels.common.compiler import library
from st_utils.kernels.common.eager import eager, eager_gradient
from st_utils.kernels.spike_conv import definition
from st_utils.kernels.spike_conv.definition import same_padding


class Densities(NamedTuple):
    """Parts of an input that are not zero, above which a dense product takes less time."""

    forward: float
    weight: float


DENSEST = Densities(forward=0.35, weight=0.4)
SAMPLE = 256  # pixels that the density is estimated from
LEAST = 2**25  # multiplications of the dense product below which the calls around a kernel take most of the time


def convolve_spikes(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`convolve` with its gradient, as an operator: without the dispatcher's way through Python in eager mode."""
    return _run(x, weight, bias)


def worthwhile(x: Tensor, weight: Tensor) -> bool:
    """Whether a convolution is large enough for its zeros to matter."""
    return x.numel() * len(weight) * weight.shape[2] * weight.shape[3] >= LEAST


# A constant to torch.compile, which would trace through the compiler's cache otherwise.
@torch.compiler.assume_constant_result
def available() -> bool:
    """Whether the kernels are compiled, or can be now."""
    return _library() is not None


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x `[N, C, H, W]`, weight `[C', C, rows, columns]` -> `[N, C', H, W]`; float32, x and result channels last."""
    if not _sparse(x, weight, DENSEST.forward):
        return definition.convolve(x, weight, bias).contiguous(memory_format=torch.channels_last)
    out = _empty_out(x, weight)
    biases = None if bias is None else bias.contiguous()
    _library().zoo_sparse_forward(
        *(x.data_ptr(), weight.data_ptr(), _strides(weight), None if biases is None else biases.data_ptr()),
        *(out.data_ptr(), _shape(x, weight), torch.get_num_threads()),
    )
    return out


_convolve_op = torch.library.custom_op("zoo::sparse_conv", convolve, mutates_args=())


@_convolve_op.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _empty_out(x, weight)


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """dL/d weight, laid out like the weight, from grad = dL/d out."""
    if not _sparse(x, weight, DENSEST.weight):
        return torch.empty_like(weight).copy_(_dense_gradients(grad, x, weight, _Wanted(weight=True)).weight)
    grad, grad_weight = grad.contiguous(memory_format=torch.channels_last), torch.empty_like(weight)
    _library().zoo_sparse_weight(
        *(x.data_ptr(), grad.data_ptr(), grad_weight.data_ptr(), _strides(grad_weight)),
        *(_shape(x, weight), torch.get_num_threads()),
    )
    return grad_weight


_weight_op = torch.library.custom_op("zoo::sparse_conv_weight", weight_gradient, mutates_args=())


@_weight_op.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return torch.empty_like(weight)


class _Wanted(NamedTuple):
    """Which gradients are asked for."""

    x: bool = False
    weight: bool = False
    bias: bool = False


class _Gradients(NamedTuple):
    """None where a gradient was not asked for."""

    x: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


def _save(ctx, inputs: tuple, output: Tensor) -> None:
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight)


def _differentiate(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    wanted = _Wanted(*ctx.needs_input_grad)
    if is_in_torch_dispatch_mode(include_infra_modes=False):  # a counter around the backward pass alone
        return tuple(_dense_gradients(grad, x, weight, wanted))
    grad_x = _dense_gradients(grad, x, weight, _Wanted(x=True)).x if wanted.x else None
    grad_weight = _weight(grad, x, weight) if wanted.weight else None
    return grad_x, grad_weight, grad.sum((0, 2, 3)) if wanted.bias else None


def _save_all(ctx, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_again(ctx, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    """Second derivatives: dL/d weight is linear in grad and in x, so each is a convolution with the cotangent."""
    grad, x, _ = ctx.saved_tensors
    grad_grad = definition.convolve(x, cotangent, None)
    return grad_grad, _dense_gradients(grad, x, cotangent, _Wanted(x=True)).x, None


_convolve_op.register_autograd(_differentiate, setup_context=_save)
_weight_op.register_autograd(_differentiate_again, setup_context=_save_all)


@register_flop_formula(torch.ops.zoo.sparse_conv)
def _(x: tuple[int, ...], weight: tuple[int, ...], *_: object, out_shape: tuple[int, ...], **__: object) -> int:
    """What FlopCounterMode counts for a compiled model: the dense product's multiplications and additions."""
    return 2 * prod(out_shape) * prod(weight[1:])


@register_flop_formula(torch.ops.zoo.sparse_conv_weight)
def _(grad: tuple[int, ...], x: tuple[int, ...], weight: tuple[int, ...], **_: object) -> int:
    return 2 * prod(grad) * prod(weight[1:])


_run = eager(_convolve_op, convolve, _save, _differentiate)
_weight = eager_gradient(_weight_op, weight_gradient)


def _dense_gradients(grad: Tensor, x: Tensor, weight: Tensor, wanted: _Wanted) -> _Gradients:
    """torch's own gradients."""
    settings = {"stride": [1, 1], "padding": same_padding(weight), "dilation": [1, 1], "groups": 1}
    transposed = {"transposed": False, "output_padding": [0, 0]}
    return _Gradients(
        *torch.ops.aten.convolution_backward(
            grad, x, weight, bias_sizes=[len(weight)], **settings, **transposed, output_mask=list(wanted)
        )
    )


def _sparse(x: Tensor, weight: Tensor, densest: float) -> bool:
    """Whether at most this part of x is not zero, estimated from pixels that are spread evenly over x."""
    if not worthwhile(x, weight) or not x.is_contiguous(memory_format=torch.channels_last):
        return False
    pixels = x.permute(0, 2, 3, 1).view(-1, x.shape[1])  # [N, C, H, W] -> [N H W, C]
    sample = pixels[:: max(1, len(pixels) // SAMPLE) | 1]  # an odd stride meets all columns where W is a power of two
    return int(torch.count_nonzero(sample)) <= densest * sample.numel()


def _empty_out(x: Tensor, weight: Tensor) -> Tensor:
    """`[N, C', H, W]`, channels last in memory."""
    return x.new_empty(x.shape[0], *x.shape[2:], len(weight)).permute(0, 3, 1, 2)


class CShape(ctypes.Structure):
    """`struct Shape` of `panels.h`."""

    _fields_ = tuple((n, c_int64) for n in ("images", "height", "width", "in_channels", "out", "rows", "columns"))


def _shape(x: Tensor, weight: Tensor) -> CShape:
    images, channels, height, width = x.shape
    out, _, rows, columns = weight.shape
    sizes = {"images": images, "height": height, "width": width, "in_channels": channels}
    return CShape(**sizes, out=out, rows=rows, columns=columns)


def _strides(weight: Tensor) -> ctypes.Array:
    return (c_int64 * 4)(*weight.stride())


def _library() -> ctypes.CDLL | None:
    compiled = library("spike_conv/cpu")
    if compiled and compiled.zoo_sparse_weight.argtypes is None:
        pointer, numbers, shape = c_void_p, POINTER(c_int64), POINTER(CShape)
        compiled.zoo_sparse_forward.argtypes = [pointer, pointer, numbers, pointer, pointer, shape, c_int]
        compiled.zoo_sparse_weight.argtypes = [pointer, pointer, pointer, numbers, shape, c_int]
        compiled.zoo_sparse_forward.restype = compiled.zoo_sparse_weight.restype = None
    return compiled
