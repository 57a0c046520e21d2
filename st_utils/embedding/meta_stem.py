"""The stem of Meta-SpikeFormer and E-SpikeFormer: convolution blocks at three sizes of the image."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from torch import nn

from registry import register
from st_utils.errors import UserError
from st_utils.layer import NodeConvNorm
from st_utils.layer.block import Block

# A membrane potential to one of the next stage, `[T, B, C, H, W]` -> `[T, B, C', ceil(H / stride), ceil(W / stride)]`.
Downsample = partial(NodeConvNorm, kernel=3, stride=2, bias=True)


@register.embedding(
    "meta_stem",
    source="Yao et al. 2024 (Meta-SpikeFormer), arXiv:2404.03663; BICLab/Spike-Driven-Transformer-V2 and -V3",
)
class MetaStem(nn.Sequential):
    """Four downsamplings of the image with convolution blocks between them; a membrane potential leaves it.

    `[T, B, C_in, H, W]` -> `[T, B, D, H / 16, W / 16]`, rounded up at each. A downsampling is neuron (but for
    the image), convolution, norm: 7 x 7 first, then 3 x 3.

    Args:
        widths: channels after the second and the third downsampling, the first having half of the former's; none
            is a quarter and half of the last's, embed_dim.
        depth: convolution blocks after the first, second and third downsampling.
        strides: of the four; [1, 1, 2, 2], say, leaves a 32 x 32 image 8 x 8 tokens.
        mlp_ratio: of the blocks' MLPs.
        attention: the blocks' token mixer; none leaves their MLPs alone (E-SpikeFormer's Large form).
        mlp: the blocks' channel mixer.
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
        layers = [Downsample(in_channels, dims[0], None, step, kernel=7, stride=strides[0])]
        for (dim, following), blocks, stride in zip(pairwise(dims), depth, strides[1:], strict=True):
            block = [Block(dim, 1, mlp_ratio, step, attention, mlp, node, "membrane") for _ in range(blocks)]
            layers += [nn.Sequential(*block), Downsample(dim, following, node, step, stride=stride)]
        super().__init__(*layers)
