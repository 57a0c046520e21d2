"""The spiking convolutional stem (SCS) of Spikformer V2.

Example:
    import torch
    import zoo
    from registry import create

    scs = create("embedding", 'scs(pooling="0011")', in_channels=3, embed_dim=64, img_size=32, step=4)
    scs(torch.rand(4, 2, 3, 32, 32)).shape  # -> torch.Size([4, 2, 64, 8, 8])
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from registry import register
from st_utils.embedding.stages import parse_pooling, stage_widths
from st_utils.errors import UserError
from st_utils.layer import ConvNormNode
from st_utils.layer.block import Block


@register.embedding("scs", source="Zhou et al. 2024 (Spikformer V2), arXiv:2401.02020")
class SCS(nn.Sequential):
    """Spiking convolutional stem: four stages that halve the image by convolution, each followed by a residual MLP.

    `[T, B, C_in, H, W]` -> `[T, B, D, H', W']`, sums of spikes; the stages have D / 8, D / 4, D / 2 and D channels. A
    stage is convolution 2 x 2 with stride 2, norm, neuron, in place of Spikformer's convolution and max-pooling; then
    x + MLP(x), the MLP being twice convolution 3 x 3, norm, neuron.

    The authors have published no code. The paper says that the stem is convolutional, halves the image by convolution
    and has supplementary convolutional layers. The kernel sizes, the order of norm and neuron, and the place of the
    shortcut are this project's reading.

    Args:
        mlp_ratio: hidden channels per channel in the MLPs.
        pooling: as in `sps`, though here a 1 halves by convolution and drops an odd row or column. A stage with 0 has
            a convolution 3 x 3 with stride 1. "0011" makes 8 x 8 tokens of a 32 x 32 image.

    Raises:
        UserError: `embed_dim` is not a multiple of 8, `pooling` is malformed, or `img_size` is too small to halve.
    """

    def __init__(
        self,
        in_channels: int,
        embed_dim: int,
        img_size: int | tuple[int, int] = 32,
        step: int = 4,
        node: str = "lif",
        mlp_ratio: float = 4.0,
        pooling: str = "1111",
    ):
        size = (img_size, img_size) if isinstance(img_size, int) else img_size
        halves = pooling.count("1")
        if min(size) < 2**halves:
            raise UserError(f"scs: {size[0]} x {size[1]} pixels are too few to halve {halves} times: set pooling")
        layers = []
        widths = pairwise(stage_widths(in_channels, embed_dim))
        for (before, width), half in zip(widths, parse_pooling(pooling), strict=True):
            kernel, stride = (2, 2) if half else (3, 1)
            layers.append(ConvNormNode(before, width, node=node, step=step, kernel=kernel, stride=stride))
            layers.append(
                Block(
                    dim=width,
                    num_heads=1,
                    mlp_ratio=mlp_ratio,
                    step=step,
                    attention=None,
                    mlp="mlp(kernel=3)",
                    node=node,
                    shortcut="spike",
                )
            )
        super().__init__(*layers)
