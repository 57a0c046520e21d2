"""`Conv2d`: nn.Conv2d that adds up the weights of the spikes in its input.

    conv = Conv2d(16, 32, 3, padding=1)
    conv((torch.rand(8, 16, 14, 14) < 0.1).float()).shape         # [N, C', H, W]: torch.Size([8, 32, 14, 14])

The result is nn.Conv2d's within rounding, for any input. The operator behind it is in `op.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from st_utils.kernels.common.eager import watched
from st_utils.kernels.spike_conv import op
from st_utils.kernels.spike_conv.definition import Geometry

FEWEST_OF_GROUP = 16  # channels, below which a string of bits is mostly empty
TORCHS_CONV2D = F.conv2d  # profilers such as DeepSpeed's replace it by a function that counts: then torch's path runs


class _EqualsTorchs(type):
    """Makes a class equal to nn.Conv2d, for tools that look up layers by `type(layer)`: thop, torch's quantisation."""

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is nn.Conv2d

    def __hash__(cls) -> int:
        return hash(nn.Conv2d)


class Conv2d(nn.Conv2d, metaclass=_EqualsTorchs):
    """`nn.Conv2d` for an input `[N, C, H, W]` that is likely to be spikes, or counts of spikes.

    Without multiplications: float32 on the CPU with the channels last in memory, zeros beyond the borders, any kernel,
    stride, padding and dilation, groups of 16 channels and more. Everything else is torch's, also where counters,
    exporters or transforms look on. The output has its channels last where the input's have no order (one channel).

    On the CPU, a 1 x 1 kernel with a stride takes every s-th row and column first and has stride 1 then: less work, and
    it avoids oneDNN's backward pass of strided 1 x 1 kernels, which writes out of bounds (torch 2.15, channels last).
    """

    def forward(self, x: Tensor) -> Tensor:
        stride, padding = self.stride, self.padding
        if x.device.type == "cpu":
            if self.kernel_size == (1, 1) != stride:
                x, stride, padding = _strided(self, x), (1, 1), (0, 0)
            x = _one_channel_last(x)
        geometry = geometry_of_spikes(self, x, stride, padding)
        if geometry is not None:
            return op.convolve_spikes(x, self.weight, self.bias, geometry)
        if stride == self.stride:
            return super().forward(x)
        return F.conv2d(x, self.weight, self.bias, groups=self.groups)


def use_conv2d(network: nn.Module) -> nn.Module:
    """Turn the network's nn.Conv2d into `Conv2d` in place, and return it; weights and hooks stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = Conv2d
    return network


def _strided(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The pixels of `[N, C, H, W]` or `[C, H, W]` that a strided 1 x 1 kernel reads, in x's layout."""
    if any(border := conv._reversed_padding_repeated_twice):
        x = F.pad(x, border, mode="constant" if conv.padding_mode == "zeros" else conv.padding_mode)
    rows, columns = conv.stride
    if x.dim() == 4 and _channels_last(x):  # sliced as [N, H, W, C], so that the gradient has its channels last too
        return x.permute(0, 2, 3, 1)[:, ::rows, ::columns].contiguous().permute(0, 3, 1, 2)
    return x[..., ::rows, ::columns].contiguous()


def _channels_last(x: Tensor) -> bool:
    """Whether the channels of x `[N, C, H, W]` lie last in memory; vmap knows no other way to ask."""
    return x.permute(0, 2, 3, 1).is_contiguous()


def _one_channel_last(x: Tensor) -> Tensor:
    """x `[N, 1, H, W]` with the strides of channels last, so that what is computed from it has them last too."""
    if (
        x.dim() != 4
        or x.shape[1] != 1
        or not x.is_contiguous()
        or type(x) is not Tensor
        or torch.compiler.is_compiling()
    ):
        return x
    rows, columns = x.shape[2:]
    return x.as_strided(x.shape, (rows * columns, 1, columns, 1))


def _numbers(conv: nn.Conv2d, padding: tuple[int, int] | str) -> tuple[int, int]:
    """The rows and columns of zeros on each side."""
    if padding == "valid":
        return (0, 0)
    if padding == "same":
        return tuple(d * (k - 1) // 2 for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
    return padding


def _odd_reach(conv: nn.Conv2d) -> bool:
    """Whether "same" means as many zeros on each side."""
    return all(d * (k - 1) % 2 == 0 for d, k in zip(conv.dilation, conv.kernel_size, strict=True))


def geometry_of_spikes(
    conv: nn.Conv2d, x: Tensor, stride: tuple[int, int] | None = None, padding: tuple[int, int] | str | None = None
) -> Geometry | None:
    """The convolution's numbers where the kernels compute it, should x `[N, C, H, W]` be spikes; else None.

    Args:
        stride, padding: in place of the convolution's own.
    """
    stride = conv.stride if stride is None else stride
    kernels_compute_it = (
        x.device.type == "cpu"
        and not watched(x, conv.weight, conv.bias)
        and x.dtype == conv.weight.dtype == torch.float32
        and x.dim() == 4
        and x.shape[1] == conv.in_channels
        and (conv.groups == 1 or conv.in_channels // conv.groups >= FEWEST_OF_GROUP)
        and not (conv.kernel_size == (1, 1) != stride)
        and conv.padding_mode == "zeros"
        and (conv.padding != "same" or _odd_reach(conv))
        and _channels_last(x)
        and not torch.is_autocast_enabled("cpu")
        and (torch.compiler.is_compiling() or op.worthwhile(x, conv.weight, stride))  # compiled, the operator asks
        and F.conv2d is TORCHS_CONV2D
        and op.available()
    )
    if not kernels_compute_it:
        return None
    zeros = _numbers(conv, conv.padding if padding is None else padding)
    geometry = Geometry(stride, zeros, conv.dilation, conv.groups)
    return geometry if min(op.out_size(x, conv.weight, geometry)) > 0 else None  # torch says what is wrong with that
