"""Convolution, batch norm and neuron over `[T, B, C, H, W]`, in the orders that the models use."""

from __future__ import annotations

from torch import Tensor, nn

from registry import Spec
from st_utils.kernels.spike_conv.op import Conv2d
from st_utils.layer.fold_norms import fold_norm
from st_utils.layer.norm_then_fire import norm_then_fire
from st_utils.layer.over_time import drop_repeated_steps, over_time
from st_utils.layer.pool import halve
from st_utils.node.base import build_node


class ConvNorm(nn.Module):
    """Convolution and batch norm, `[T, B, C, H, W]` -> `[T, B, C', H', W']`; the norm sees T * B samples."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        bias: bool = False,
        groups: int = 1,
    ):
        super().__init__()
        padding = (kernel - 1) // 2  # an even kernel, of a stride as long, tiles the image
        self.conv = Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return over_time(self.norm, over_time(self.conv, x))

    def fold_norms(self) -> None:
        """See st_utils.layer.fold_norms."""
        self.norm = fold_norm(self.conv, self.norm)


class ConvNormNode(ConvNorm):
    """Convolution, batch norm and a neuron: spikes `[T, B, C', H', W']`; with `pool`, halved before the neuron."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        node: str | Spec,
        step: int,
        kernel: int = 1,
        stride: int = 1,
        bias: bool = False,
        groups: int = 1,
        pool: bool = False,
    ):
        super().__init__(in_channels, out_channels, kernel, stride, bias, groups)
        self.pool = pool
        self.node = build_node(node, step, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.pool:
            return self.node(halve(super().forward(x)))
        y = over_time(self.conv, x)
        return norm_then_fire(self.norm, self.node, drop_repeated_steps(y), steps=len(y))


class NodeConvNorm(ConvNorm):
    """A neuron, then convolution and batch norm: real values in and out. With node=none it takes the image."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        node: str | Spec | None,
        step: int,
        kernel: int = 1,
        stride: int = 1,
        bias: bool = False,
        groups: int = 1,
    ):
        super().__init__(in_channels, out_channels, kernel, stride, bias, groups)
        self.node = nn.Identity() if node is None else build_node(node, step, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.node(x))


class NormNode(nn.Module):
    """Batch norm and a neuron: real values `[T, B, C, H, W]` -> spikes of the same shape."""

    def __init__(self, channels: int, node: str | Spec, step: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.node = build_node(node, step, channels)

    def forward(self, x: Tensor) -> Tensor:
        return norm_then_fire(self.norm, self.node, x)
