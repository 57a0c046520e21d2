"""The stem of Meta-SpikeFormer and E-SpikeFormer: four downsamplings with convolution blocks between them.

Example:
    import torch
    import zoo
    from registry import create

    stem = create("embedding", "meta_stem(strides=[1, 1, 2, 2])", in_channels=3, embed_dim=64, step=4)
    stem(torch.rand(4, 2, 3, 32, 32)).shape  # -> torch.Size([4, 2, 64, 8, 8])
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from torch import nn

from registry import register
from st_utils.errors import UserError
from st_utils.layer import NodeConvNorm
from st_utils.layer.block import Block

# Neuron, convolution, norm: `[T, B, C, H, W]` -> `[T, B, C', ceil(H / stride), ceil(W / stride)]`, membrane potentials
Downsample = partial(NodeConvNorm, kernel=3, stride=2, bias=True)


@register.embedding(
    "meta_stem",
    source="Yao et al. 2024 (Meta-SpikeFormer), arXiv:2404.03663; BICLab/Spike-Driven-Transformer-V2 and -V3",
)
class MetaStem(nn.Sequential):
    """Meta-SpikeFormer's stem: four downsamplings of the image with convolution blocks between them.

    `[T, B, C_in, H, W]` -> `[T, B, D, H / 16, W / 16]`, membrane potentials, sizes rounded up at each downsampling. A
    downsampling is neuron, convolution, norm; the first has a 7 x 7 convolution and no neuron, the others 3 x 3.

    Args:
        widths: channels (w2, w3) after the second and third downsampling; the first has w2 / 2 and the last embed_dim.
            `none` is (embed_dim / 4, embed_dim / 2).
        depth: number of convolution blocks after the first, second and third downsampling.
        strides: strides of the four downsamplings; [1, 1, 2, 2] makes 8 x 8 tokens of a 32 x 32 image.
        mlp_ratio: hidden channels per channel in the blocks' MLPs.
        attention: spec of the blocks' token mixer; `none` leaves the MLP only (E-SpikeFormer's Large form).
        mlp: spec of the blocks' MLP.

    Raises:
        UserError: a width, stride or depth is too small, or `embed_dim` is not a multiple of 8 and has no `widths`.
    """

    def __init__(
        self,
        in_channels: int,
        embed_dim: int,
        step: int = 4,
        node: str = "lif",
        widths: tuple[int, int] | None = None,
        depth: tuple[int, int, int] = (1, 1, 2),
        strides: tuple[int, int, int, int] = (2, 2, 2, 2),
        mlp_ratio: float = 4.0,
        attention: str | None = "sepconv",
        mlp: str = "mlp(bias=false, kernel=3)",
    ):
        if widths is None and embed_dim % 8:
            raise UserError(f"meta_stem: embed_dim must be a multiple of 8 or widths be given, not {embed_dim}")
        second, third = widths or (embed_dim // 4, embed_dim // 2)
        if second < 2 or third < 1:
            raise UserError(f"meta_stem: widths must be at least 2 and 1, not {second} and {third}")
        if min(strides) < 1 or min(depth) < 0:
            raise UserError(f"meta_stem: strides must be at least 1 and depth 0, not {list(strides)}, {list(depth)}")
        dims = (second // 2, second, third, embed_dim)
        layers = [Downsample(in_channels, dims[0], node=None, step=step, kernel=7, stride=strides[0])]
        block = partial(
            Block,
            num_heads=1,
            mlp_ratio=mlp_ratio,
            step=step,
            attention=attention,
            mlp=mlp,
            node=node,
            shortcut="membrane",
        )
        for (dim, following), blocks, stride in zip(pairwise(dims), depth, strides[1:], strict=True):
            stage = nn.Sequential(*(block(dim) for _ in range(blocks)))
            layers += [stage, Downsample(dim, following, node=node, step=step, stride=stride)]
        super().__init__(*layers)
