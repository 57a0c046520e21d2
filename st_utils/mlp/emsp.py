"""The MLP of the spiking experts mixture (SEMM): half of the hidden spikes gate the other half.

Example:
    import zoo
    from registry import create

    create("mlp", "emsp", dim=64, mlp_ratio=2.0, step=4).spec  # -> 'emsp(dim=64, mlp_ratio=2.0)'
"""

from __future__ import annotations

from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.layer import ConvNorm, ConvNormNode
from st_utils.papers import SEMM


@register.mlp("emsp", source=f"{SEMM}; Fancyssc/SpikingTransformerBenchmark")
class EMSP(nn.Module):
    """Experts mixture of spiking perceptrons: half of the hidden spikes gate the other half.

        a, b = halves of neuron(norm(conv 1 x 1(x)))                       D mlp_ratio / 2 channels each
        norm(conv 1 x 1(neuron(norm(depthwise conv 3 x 3(a))) * b))        [T, B, D, H, W], as x

    Raises:
        UserError: the number of hidden channels is odd or 0.
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
        router, expert = self.fc1(x).chunk(2, dim=2)  # [T, B, hidden / 2, H, W] each
        return self.fc2(self.depthwise(router) * expert)
