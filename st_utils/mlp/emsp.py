"""The channel mixer of the spiking experts mixture."""

from __future__ import annotations

from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.layer import ConvNorm, ConvNormNode
from st_utils.papers import SEMM


@register.mlp("emsp", source=f"{SEMM}; Fancyssc/SpikingTransformerBenchmark")
class EMSP(nn.Module):
    """Experts mixture of spiking perceptrons: half of the hidden spikes, mixed over 3 x 3 pixels, gate the other half.

    `[T, B, D, H, W]` -> the same, without the neuron of the block around it: 1 x 1 convolution to `mlp_ratio` D
    channels, norm, neuron: a and b, half of them each; then neuron(norm(depthwise 3 x 3 (a))) * b, 1 x 1
    convolution to D, norm.
    """

    def __init__(self, dim: int, mlp_ratio: float = 4.0, step: int = 4, node: str = "lif"):
        super().__init__()
        hidden = int(dim * mlp_ratio)
        if hidden < 2 or hidden % 2:
            raise UserError(f"emsp: dim={dim} times mlp_ratio={mlp_ratio} must be an even number of channels")
        half = hidden // 2
        self.fc1 = ConvNormNode(dim, hidden, node, step, bias=True)
        self.depthwise = ConvNormNode(half, half, node, step, kernel=3, groups=half)
        self.fc2 = ConvNorm(half, dim, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        router, expert = self.fc1(x).chunk(2, dim=2)
        return self.fc2(self.depthwise(router) * expert)
