"""The MLP of SpikingResformer: the group-wise spiking feed-forward network.

Example:
    import zoo
    from registry import create

    create("mlp", "gwffn(group_size=32)", dim=64, mlp_ratio=2.0, step=4).spec  # -> 'gwffn(dim=64, group_size=32, ...)'
"""

from __future__ import annotations

from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.layer import ConvNorm, NodeConvNorm
from st_utils.papers import SPIKINGRESFORMER


@register.mlp("gwffn", source=f"{SPIKINGRESFORMER}; Fancyssc/SpikingTransformerBenchmark")
class GWFFN(nn.Module):
    """Group-wise spiking feed-forward network: 1 x 1 up, grouped 3 x 3 convolutions with a shortcut, 1 x 1 down.

        u = up(x)                            up = norm(conv 1 x 1), after the block's neuron
        down(u + grouped convolutions(u))    each norm(conv(neuron)); [T, B, D, H, W], as x

    No convolution has a bias.

    Args:
        group_size: channels per group of the 3 x 3 convolutions; with fewer hidden channels there is one group.
        num_conv: number of 3 x 3 convolutions inside the inner shortcut.

    Raises:
        UserError: the hidden channels do not divide into groups, or there are none.
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
