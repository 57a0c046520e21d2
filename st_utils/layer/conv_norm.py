"""Convolution, batch norm and neuron over `[T, B, C, H, W]`, in the orders that models use.

Example:
    import torch
    from st_utils.layer.conv_norm import ConvNormNode

    layer = ConvNormNode(3, 16, node="plif(tau=2.0)", step=4, kernel=3, pool=True)
    layer(torch.rand(4, 2, 3, 8, 8)).shape  # -> torch.Size([4, 2, 16, 4, 4])

The arguments are the same in all of them: `in_channels`, `out_channels`, `kernel`, `stride`, `bias` and `groups` are
the convolution's, with padding (kernel - 1) // 2; `node` is the spec of the neuron, `step` its number of time steps T.
"""

from __future__ import annotations

from torch import Tensor, nn

from registry import Spec
from st_utils.kernels.spike_conv.conv2d import Conv2d
from st_utils.layer.conv_then_fire import conv_then_fire
from st_utils.layer.fold_norms import fold_norm
from st_utils.layer.norm_then_fire import norm_then_fire
from st_utils.layer.over_time import drop_repeated_steps, over_time
from st_utils.layer.pool import halve
from st_utils.node.base import build_node


class ConvNorm(nn.Module):
    """Convolution, batch norm: `[T, B, C, H, W]` -> `[T, B, C', H', W']`, real values.

    The norm's statistics are over the T B samples together. H' = ceil(H / stride) for an odd kernel, H / 2 for kernel 2
    with stride 2.
    """

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
        padding = (kernel - 1) // 2  # none for kernel 2 with stride 2, whose windows tile the image
        self.conv = Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return over_time(self.norm, over_time(self.conv, x))

    def fold_norms(self) -> None:
        """Fold the norm into the convolution, see `st_utils/layer/fold_norms.py`."""
        self.norm = fold_norm(self.conv, self.norm)


class ConvNormNode(ConvNorm):
    """Convolution, batch norm, neuron: `[T, B, C, H, W]` -> spikes `[T, B, C', H', W']`.

    Args:
        pool: max-pooling to half the size between norm and neuron.
    """

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
        if (spikes := conv_then_fire(self.conv, self.norm, self.node, x)) is not None:
            return spikes
        y = over_time(self.conv, x)
        return norm_then_fire(self.norm, self.node, drop_repeated_steps(y), steps=len(y))


class NodeConvNorm(ConvNorm):
    """Neuron, convolution, batch norm: `[T, B, C, H, W]` -> `[T, B, C', H', W']`, real values to real values.

    Args:
        node: spec of the neuron; `None` has no neuron, for the image itself.
    """

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
    """Batch norm, neuron: real values `[T, B, C, H, W]` -> spikes of the same shape."""

    def __init__(self, channels: int, node: str | Spec, step: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.node = build_node(node, step, channels)

    def forward(self, x: Tensor) -> Tensor:
        return norm_then_fire(self.norm, self.node, x)
