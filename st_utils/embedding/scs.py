"""The convolutional stem of Spikformer V2."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from registry import register
from st_utils.embedding.sps import halvings, stage_widths
from st_utils.errors import UserError
from st_utils.layer import ConvNormNode
from st_utils.layer.block import Block


@register.embedding("scs", source="Zhou et al. 2024 (Spikformer V2), arXiv:2401.02020")
class SCS(nn.Sequential):
    """Spiking convolutional stem: four stages that halve the image by convolution, each with a convolutional MLP.

    `[T, B, C_in, H, W]` -> `[T, B, D, H', W']` of counts of spikes; D / 8, D / 4, D / 2, D channels. A stage is
    convolution 2 x 2 of stride 2, norm, neuron, in place of Spikformer's convolution and max-pooling, and then two
    3 x 3 convolutions, each with norm and neuron, in a branch whose spikes are added.

    The authors have published no code. That the stem is convolutional, halves by convolution and has supplementary
    convolutional layers is the paper's; the kernel sizes, the order of norm and neuron, and what is added to what are
    this project's reading of it.

    Args:
        mlp_ratio: the branch is so many times wider between its two convolutions.
        pooling: which stages halve the image (no pooling does it here; the name is that of `sps`). A stage with a 0
            has a convolution 3 x 3 of stride 1 instead; "0011" leaves a 32 x 32 image 8 x 8 tokens. An odd row or
            column is dropped.
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
        size, halves = (img_size, img_size) if isinstance(img_size, int) else img_size, pooling.count("1")
        if min(size) < 2**halves:
            raise UserError(f"scs: {size[0]} x {size[1]} pixels are too few to halve {halves} times: set pooling")
        layers = []
        widths = pairwise(stage_widths(in_channels, embed_dim))
        for (before, width), half in zip(widths, halvings(pooling), strict=True):
            kernel, stride = (2, 2) if half else (3, 1)
            layers.append(ConvNormNode(before, width, node, step, kernel, stride))
            layers.append(Block(width, 1, mlp_ratio, step, None, "mlp(kernel=3)", node, "spike"))
        super().__init__(*layers)
