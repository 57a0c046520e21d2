"""`Conv2d`: nn.Conv2d that adds up the weights of the spikes in its input where that is faster.

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

TORCHS_CONV2D = F.conv2d  # profilers such as DeepSpeed's replace it by a function that counts: then torch's path runs


class _EqualsTorchs(type):
    """Makes a class equal to nn.Conv2d, for tools that look up layers by `type(layer)`: thop, torch's quantisation."""

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is nn.Conv2d

    def __hash__(cls) -> int:
        return hash(nn.Conv2d)


class Conv2d(nn.Conv2d, metaclass=_EqualsTorchs):
    """`nn.Conv2d` for an input `[N, C, H, W]` that is likely to be spikes.

    By additions: float32 on the CPU with the channels last in memory, stride 1, one group, and an output as large as
    the input, where `op.py` finds that faster. Everything else is torch's, also where counters, exporters or transforms
    look on.

    On the CPU, a 1 x 1 kernel with a stride takes every s-th row and column first and has stride 1 then: less work, and
    it avoids oneDNN's backward pass of strided 1 x 1 kernels, which writes out of bounds (torch 2.15, channels last).
    """

    def forward(self, x: Tensor) -> Tensor:
        stride, padding = self.stride, self.padding
        if self.kernel_size == (1, 1) != stride and x.device.type == "cpu":
            x, stride, padding = _strided(self, x), (1, 1), (0, 0)
        if _by_additions(self, x, stride, padding):
            return op.convolve_spikes(x, self.weight, self.bias)
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


def _by_additions(conv: nn.Conv2d, x: Tensor, stride: tuple[int, int], padding: tuple[int, int] | str) -> bool:
    rows, columns = conv.kernel_size
    return (
        x.device.type == "cpu"
        and not watched(x, conv.weight, conv.bias)
        and x.dtype == conv.weight.dtype == torch.float32
        and x.dim() == 4
        and x.shape[1] == conv.in_channels < 2**16  # cpu.cpp numbers channels, and a panel's pixels, by 16 bits
        and stride == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and rows % 2 == columns % 2 == 1
        and padding == (rows // 2, columns // 2)
        and _channels_last(x)
        and rows * (x.shape[3] + columns) < 2**16
        and not torch.is_autocast_enabled("cpu")
        and (torch.compiler.is_compiling() or op.worthwhile(x, conv.weight))  # compiled, the operator asks at run time
        and F.conv2d is TORCHS_CONV2D
        and op.available()
    )
