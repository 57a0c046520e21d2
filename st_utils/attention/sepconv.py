"""The separable convolution of Meta-SpikeFormer and E-SpikeFormer, a token mixer without attention.

Example:
    import zoo
    from registry import create

    create("attention", "sepconv(kernel=3)", dim=64, step=4).spec  # -> 'sepconv(dim=64, kernel=3)'
"""

from __future__ import annotations

from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.kernels.spike_conv.conv2d import Conv2d
from st_utils.layer import ConvNorm, ConvNormNode, over_time

SOURCE = "Sandler et al. 2018 (MobileNetV2), arXiv:1801.04381; spiking in Meta-SpikeFormer, arXiv:2404.03663"


@register.attention("sepconv", source=SOURCE + "; BICLab/Spike-Driven-Transformer-V2 and -V3")
class SepConv(nn.Module):
    """Separable convolution: 1 x 1 to more channels, norm, neuron, depthwise k x k, 1 x 1 back, norm.

    `[T, B, D, H, W]` -> the same shape.

    Args:
        kernel: size k of the depthwise convolution, odd; 7 in the authors' convolution blocks, 3 in E-SpikeFormer's
            other blocks.
        expansion: hidden channels per input channel.
        spiking_project: true adds norm and neuron after the depthwise convolution, so that the last convolution gets
            spikes (E-SpikeFormer); false gives it real values (Meta-SpikeFormer).

    Raises:
        UserError: `kernel` is even or less than 1, or `expansion` leaves no hidden channel.
    """

    def __init__(
        self,
        dim: int,
        step: int = 4,
        node: str = "lif",
        kernel: int = 7,
        expansion: float = 2.0,
        spiking_project: bool = False,
    ):
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(f"sepconv: kernel must be odd, not {kernel}")
        hidden = int(dim * expansion)
        if hidden < 1:
            raise UserError(f"sepconv: expansion={expansion} leaves no hidden channel of dim={dim}")
        self.expand = ConvNormNode(dim, hidden, node, step)
        if spiking_project:
            self.depthwise = ConvNormNode(hidden, hidden, node, step, kernel, groups=hidden)
        else:
            self.depthwise = Conv2d(hidden, hidden, kernel, padding=kernel // 2, groups=hidden, bias=False)
        self.project = ConvNorm(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(x)
        y = over_time(self.depthwise, y) if isinstance(self.depthwise, nn.Conv2d) else self.depthwise(y)
        return self.project(y)
