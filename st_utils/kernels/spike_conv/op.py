"""Convolution of spikes by additions, `zoo::sparse_conv`: on the CPU, what is zero is skipped.

A convolution over spikes adds up the weights of those that are there; dense products multiply by the zeros as well.
sparse_conv.cpp lists what is not zero and sums no more than that, forward and for the weight's gradient; the input's
gradient is a dense product. It gives the convolution's values within rounding, for any input. Only the order in which
float32 numbers are summed differs, so where an input is too dense to gain, the operator computes as torch does.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_int, c_int64, c_void_p
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils.flop_counter import register_flop_formula

from st_utils.kernels.common.compiler import library
from st_utils.kernels.common.eager import eager, eager_gradient, watched

# Parts of an input that are not zero, above which a dense product takes less time: forward and the weight's gradient.
DENSEST = 0.35, 0.4
SAMPLE = 256  # pixels that the density is judged by
LEAST = 2**25  # multiplications of a dense product, below which the calls around it weigh more
TORCHS = F.conv2d  # profilers such as DeepSpeed's put a counting function in its place


class _SeenAsTorchs(type):
    """Makes a class equal to nn.Conv2d for tools that look layers up by type, as thop and torch's quantisation do."""

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is nn.Conv2d

    def __hash__(cls) -> int:
        return hash(nn.Conv2d)


class Conv2d(nn.Conv2d, metaclass=_SeenAsTorchs):
    """`nn.Conv2d` whose input is likely to be spikes, `[N, C, H, W]`.

    Float32 on the CPU with the channels last in memory, with stride 1, one group and an output as large as the input:
    by additions where that takes less time. Anything else is torch's, and so is everything where counters, exporters
    or transforms look on. On the CPU, a 1 x 1 kernel with a stride is one without over every s-th row and column:
    that is less work, and oneDNN's backward pass of the former writes past its memory (torch 2.15, channels last).
    """

    def forward(self, x: Tensor) -> Tensor:
        stride, padding = self.stride, self.padding
        if self.kernel_size == (1, 1) != stride and x.device.type == "cpu":
            x, stride, padding = _strided(self, x), (1, 1), (0, 0)
        if _usable(self, x, stride, padding):
            return _run(x, self.weight, self.bias)
        if stride == self.stride:
            return super().forward(x)
        return F.conv2d(x, self.weight, self.bias, groups=self.groups)


def use_conv2d(network: nn.Module) -> nn.Module:
    """The network, its nn.Conv2d computing as `Conv2d` does; their weights and hooks stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = Conv2d
    return network


def _strided(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The pixels of `[N, C, H, W]` or `[C, H, W]` that a 1 x 1 kernel meets, in x's order of axes in memory."""
    if any(border := conv._reversed_padding_repeated_twice):
        x = F.pad(x, border, mode="constant" if conv.padding_mode == "zeros" else conv.padding_mode)
    rows, columns = conv.stride
    if x.dim() == 4 and _channels_last(x):  # sliced as [N, H, W, C], so that the gradient has its channels last too
        return x.permute(0, 2, 3, 1)[:, ::rows, ::columns].contiguous().permute(0, 3, 1, 2)
    return x[..., ::rows, ::columns].contiguous()


def _channels_last(x: Tensor) -> bool:
    """Whether the channels of x `[N, C, H, W]` lie last in memory; vmap knows no other way to ask."""
    return x.permute(0, 2, 3, 1).is_contiguous()


def _usable(conv: nn.Conv2d, x: Tensor, stride: tuple[int, int], padding: tuple[int, int] | str) -> bool:
    rows, columns = conv.kernel_size
    return (
        x.device.type == "cpu"
        and not watched(x, conv.weight, conv.bias)
        and x.dtype == conv.weight.dtype == torch.float32
        and x.dim() == 4
        and x.shape[1] == conv.in_channels < 2**16
        and stride == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and rows % 2 == columns % 2 == 1
        and padding == (rows // 2, columns // 2)
        and _channels_last(x)
        and rows * (x.shape[3] + columns) < 2**16
        and not torch.is_autocast_enabled("cpu")
        and (torch.compiler.is_compiling() or _worthwhile(x, conv.weight))
        and F.conv2d is TORCHS
        and _available()
    )


def _worthwhile(x: Tensor, weight: Tensor) -> bool:
    return x.numel() * len(weight) * weight.shape[2] * weight.shape[3] >= LEAST


@torch.compiler.assume_constant_result
def _available() -> bool:
    return _library() is not None


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x `[N, C, H, W]` float32, its channels last, with the weight `[C', C, rows, columns]`: `[N, C', H, W]`, alike."""
    if not _sparse(x, weight, DENSEST[0]):
        return F.conv2d(x, weight, bias, padding=_padding(weight)).contiguous(memory_format=torch.channels_last)
    out = _empty_out(x, weight)
    biases = None if bias is None else bias.contiguous()
    pointers = x.data_ptr(), weight.data_ptr(), _strides(weight), None if biases is None else biases.data_ptr()
    _library().zoo_sparse_forward(*pointers, out.data_ptr(), _shape(x, weight), torch.get_num_threads())
    return out


_convolve_op = torch.library.custom_op("zoo::sparse_conv", convolve, mutates_args=())


@_convolve_op.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _empty_out(x, weight)


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the weight, like it, from that of the output."""
    if not _sparse(x, weight, DENSEST[1]):
        return torch.empty_like(weight).copy_(_dense_gradients(grad, x, weight, (False, True, False))[1])
    grad, grad_weight = grad.contiguous(memory_format=torch.channels_last), torch.empty_like(weight)
    pointers = x.data_ptr(), grad.data_ptr(), grad_weight.data_ptr(), _strides(grad_weight)
    _library().zoo_sparse_weight(*pointers, _shape(x, weight), torch.get_num_threads())
    return grad_weight


_weight_op = torch.library.custom_op("zoo::sparse_conv_weight", weight_gradient, mutates_args=())


@_weight_op.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return torch.empty_like(weight)


def _save(ctx, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _differentiate(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    needs_x, needs_weight, needs_bias = ctx.needs_input_grad
    if is_in_torch_dispatch_mode(include_infra_modes=False):  # a counter around the backward pass alone
        return _dense_gradients(grad, x, weight, (needs_x, needs_weight, needs_bias))
    grad_x = _dense_gradients(grad, x, weight, (True, False, False))[0] if needs_x else None
    grad_weight = _weight(grad, x, weight) if needs_weight else None
    return grad_x, grad_weight, grad.sum((0, 2, 3)) if needs_bias else None


def _save_all(ctx, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_again(ctx, cotangent: Tensor) -> tuple[Tensor | None, ...]:
    """The weight's gradient is linear in the output's and in the input."""
    grad, x, weight = ctx.saved_tensors
    grad_grad = F.conv2d(x, cotangent, padding=_padding(weight))
    return grad_grad, _dense_gradients(grad, x, cotangent, (True, False, False))[0], None


_convolve_op.register_autograd(_differentiate, setup_context=_save)
_weight_op.register_autograd(_differentiate_again, setup_context=_save_all)


@register_flop_formula(torch.ops.zoo.sparse_conv)
def _(x: tuple[int, ...], weight: tuple[int, ...], *_: object, out_shape: tuple[int, ...], **__: object) -> int:
    """What FlopCounterMode counts for a compiled model: the dense products' multiplications and additions."""
    return 2 * prod(out_shape) * prod(weight[1:])


@register_flop_formula(torch.ops.zoo.sparse_conv_weight)
def _(grad: tuple[int, ...], x: tuple[int, ...], weight: tuple[int, ...], **_: object) -> int:
    return 2 * prod(grad) * prod(weight[1:])


_run = eager(_convolve_op, convolve, _save, _differentiate)
_weight = eager_gradient(_weight_op, weight_gradient)


def _dense_gradients(grad: Tensor, x: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]) -> tuple:
    """torch's gradients of input, weight and bias, None for what is not wanted."""
    settings = [1, 1], _padding(weight), [1, 1], False, [0, 0], 1, wanted
    return torch.ops.aten.convolution_backward(grad, x, weight, [len(weight)], *settings)


def _sparse(x: Tensor, weight: Tensor, densest: float) -> bool:
    """Whether so few of x's numbers are not zero, judged by pixels spread evenly over them."""
    if not _worthwhile(x, weight) or not x.is_contiguous(memory_format=torch.channels_last):
        return False
    pixels = x.permute(0, 2, 3, 1).view(-1, x.shape[1])
    sample = pixels[:: max(1, len(pixels) // SAMPLE) | 1]  # an odd stride, so that all columns are seen
    return int(torch.count_nonzero(sample)) <= densest * sample.numel()


def _padding(weight: Tensor) -> list[int]:
    return [weight.shape[2] // 2, weight.shape[3] // 2]


def _empty_out(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], *x.shape[2:], len(weight)).permute(0, 3, 1, 2)


class CShape(ctypes.Structure):
    """`struct Shape` of sparse_conv.cpp."""

    _fields_ = tuple((n, c_int64) for n in ("images", "height", "width", "in_channels", "out", "rows", "columns"))


def _shape(x: Tensor, weight: Tensor) -> CShape:
    return CShape(x.shape[0], *x.shape[2:], x.shape[1], len(weight), *weight.shape[2:])


def _strides(weight: Tensor) -> ctypes.Array:
    return (c_int64 * 4)(*weight.stride())


def _library() -> ctypes.CDLL | None:
    found = library("spike_conv/cpu")
    if found and found.zoo_sparse_weight.argtypes is None:
        pointer, numbers, shape = c_void_p, POINTER(c_int64), POINTER(CShape)
        found.zoo_sparse_forward.argtypes = [pointer, pointer, numbers, pointer, pointer, shape, c_int]
        found.zoo_sparse_weight.argtypes = [pointer, pointer, pointer, numbers, shape, c_int]
        found.zoo_sparse_forward.restype = found.zoo_sparse_weight.restype = None
    return found
