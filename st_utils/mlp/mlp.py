"""The MLP of Spikformer and SDT.

Example:
    import zoo
    from registry import create

    create("mlp", "mlp(kernel=3)", dim=64, mlp_ratio=2.0, step=4).spec  # -> 'mlp(dim=64, kernel=3, mlp_ratio=2.0)'
"""

from __future__ import annotations

from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.layer import ConvNorm, ConvNormNode


@register.mlp("mlp", source="Zhou et al. 2023 (Spikformer), arXiv:2209.15425; Yao et al. 2023 (SDT), arXiv:2307.01694")
class MLP(nn.Module):
    """Two-layer perceptron per token: convolution 1 x 1, norm, neuron, convolution 1 x 1, norm.

    `[T, B, D, H, W]` -> the same shape, with int(D * mlp_ratio) hidden channels.

    Args:
        bias: the convolutions have a bias.
        kernel: size of both convolutions, odd; 3 is the MLP of Meta-SpikeFormer's convolution blocks
            (arXiv:2404.03663).

    Raises:
        UserError: `kernel` is even or less than 1, or `mlp_ratio` leaves no hidden channel.
    """

    def __init__(
        self,
        dim: int,
        mlp_ratio: float = 4.0,
        step: int = 4,
        node: str = "lif",
        bias: bool = True,
        kernel: int = 1,
    ):
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(f"mlp: kernel must be odd, not {kernel}")
        hidden = int(dim * mlp_ratio)
        if hidden < 1:
            raise UserError(f"mlp_ratio={mlp_ratio} leaves no hidden channel of dim={dim}")
        self.fc1 = ConvNormNode(dim, hidden, node, step, kernel, bias=bias)
        self.fc2 = ConvNorm(hidden, dim, kernel, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x))
