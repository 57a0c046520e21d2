"""The channel mixer of SpikingResformer."""

from __future__ import annotations

from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.layer import ConvNorm, NodeConvNorm
from st_utils.papers import SPIKINGRESFORMER


@register.mlp("gwffn", source=f"{SPIKINGRESFORMER}; Fancyssc/SpikingTransformerBenchmark")
class GWFFN(nn.Module):
    """Group-wise spiking feed-forward network: up, u + grouped 3 x 3 convolutions of u's spikes, down.

    `[T, B, D, H, W]` -> the same, without the neuron of the block around it. Each convolution has no bias and a
    norm; all but the first, which the block's neuron precedes, begin with a neuron.

    Args:
        group_size: channels of a group of the 3 x 3 convolutions; one group where there are fewer.
        num_conv: 3 x 3 convolutions within the inner shortcut.
    """

    def __init__(
        self,
        dim: int,
        mlp_ratio: float = 4.0,
        step: int = 4,
        node: str = "lif",
        group_size: int = 64,
        num_conv: int = 1,
    ):
        super().__init__()
        hidden = int(dim * mlp_ratio)
        if hidden < 1 or group_size < 1:
            raise UserError(f"gwffn: dim={dim} times mlp_ratio={mlp_ratio} and group_size={group_size} must be above 0")
        groups = max(1, hidden // group_size)
        if hidden % groups:
            raise UserError(f"gwffn: {hidden} hidden channels do not divide into groups of group_size={group_size}")
        self.up = ConvNorm(dim, hidden)
        convs = (NodeConvNorm(hidden, hidden, node, step, kernel=3, groups=groups) for _ in range(num_conv))
        self.convs = nn.Sequential(*convs)
        self.down = NodeConvNorm(hidden, dim, node, step)

    def forward(self, x: Tensor) -> Tensor:
        u = self.up(x)
        return self.down(u + self.convs(u))
