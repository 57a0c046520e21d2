"""The layers that parts share: convolution and norm over `T B C H W`, with or without a neuron."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from registry import Spec
from st_utils.errors import UserError
from st_utils.inference import fold
from st_utils.kernels.norm_node import norm_then_fire
from st_utils.kernels.sparse_conv import Conv2d
from st_utils.node.base import build_node
from st_utils.per_sample import rand
from st_utils.steps import distinct, over_time


class OverTime(nn.Sequential):
    """Layers for `[N, C, H, W]` applied to `[T, B, C, H, W]`, time and samples together as their batch."""

    def forward(self, x: Tensor) -> Tensor:
        return over_time(super().forward, x)


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
        """See st_utils.inference."""
        self.norm = fold(self.conv, self.norm)


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
        return norm_then_fire(self.norm, self.node, distinct(y), steps=len(y))


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


def halve(x: Tensor) -> Tensor:
    """Max-pool `[T, B, C, H, W]` to half the rows and columns: kernel 3, stride 2, padding 1."""
    return over_time(lambda y: F.max_pool2d(y, 3, stride=2, padding=1), x)


def max_3x3(x: Tensor) -> Tensor:
    """Max over the 3 x 3 neighbourhood in the last two axes of a 5-D tensor; the shape stays."""
    return over_time(lambda y: F.max_pool2d(y, 3, stride=1, padding=1), x)


class DropPath(nn.Module):
    """Stochastic depth: in training a whole sample's branch is dropped, for all its time steps at once.

    Huang et al. 2016, arXiv:1603.09382. `[T, B, ...]` -> the same.
    """

    def __init__(self, rate: float):
        super().__init__()
        if not 0 <= rate < 1:
            raise UserError(f"drop_path must be at least 0 and below 1, not {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = rand((1, x.shape[1], *[1] * (x.dim() - 2)), axis=1, device=x.device) >= self.rate
        return x * keep.to(x.dtype) / (1 - self.rate)


def init_kaiming_normal(module: nn.Module) -> None:
    """He's normal weights for the fan-out of every convolution, as the field's ResNets have them."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")


def init_trunc_normal(module: nn.Module, *, kernels: tuple[int, ...], linear: bool, std: float = 0.02) -> None:
    """Truncated normal weights and zero biases for convolutions of these kernel sizes, and linear layers."""
    for m in module.modules():
        wanted = m.kernel_size[0] in kernels if isinstance(m, nn.Conv2d) else linear and isinstance(m, nn.Linear)
        if wanted and m.weight.requires_grad:
            nn.init.trunc_normal_(m.weight, std=std)
            if m.bias is not None:
                nn.init.zeros_(m.bias)
