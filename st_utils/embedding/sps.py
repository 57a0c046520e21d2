"""Spiking patch splitting: four convolution stages, some of them halving the image, and a position stage."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.layer import ConvNorm, ConvNormNode, halve

FIRST_STAGE = 8  # embed_dim over the channels of the first stage


def stage_widths(in_channels: int, embed_dim: int) -> list[int]:
    """The channels that enter the first of the four stages, and that leave each. Raises UserError."""
    if embed_dim % FIRST_STAGE:
        raise UserError(f"embed_dim must be a multiple of {FIRST_STAGE}, not {embed_dim}")
    return [in_channels, embed_dim // 8, embed_dim // 4, embed_dim // 2, embed_dim]


def _stages(in_channels: int, embed_dim: int, node: str, step: int) -> nn.ModuleList:
    widths = pairwise(stage_widths(in_channels, embed_dim))
    return nn.ModuleList(ConvNormNode(a, b, node, step, kernel=3) for a, b in widths)


def halvings(pooling: str) -> list[bool]:
    """Whether each of the four stages halves the image. Raises UserError."""
    if len(pooling) != 4 or set(pooling) - set("01"):
        raise UserError(f'pooling must be four of 0 and 1, such as "0011", not "{pooling}"')
    return [flag == "1" for flag in pooling]


@register.embedding("sps", source="Zhou et al. 2023 (Spikformer), arXiv:2209.15425; ZK-Zhou/spikformer")
class SPS(nn.Module):
    """Spikformer's patch splitting: `[T, B, C_in, H, W]` -> `[T, B, D, H', W']` of values 0, 1, 2.

    A stage is convolution 3 x 3, norm, neuron and, where `pooling` has a 1, max-pooling of the spikes. The
    position stage adds its own spikes: x + neuron(norm(conv(x))). `pooling` is "0011" for CIFAR and "1111"
    for events and ImageNet; a 1 halves the image.

    Args:
        spiking: a neuron ends the position stage; without it real values leave (SWFormer's x + norm(conv(x))).
        shortcut: x is added; with neither, norm(conv(x)), it is Spikingformer's, whose neurons stand before the
            convolutions (arXiv:2304.11954).
    """

    def __init__(
        self,
        in_channels: int,
        embed_dim: int,
        step: int = 4,
        node: str = "lif",
        pooling: str = "0011",
        spiking: bool = True,
        shortcut: bool = True,
    ):
        super().__init__()
        self.halve = halvings(pooling)
        self.shortcut = shortcut
        self.stages = _stages(in_channels, embed_dim, node, step)
        last = partial(ConvNormNode, node=node, step=step) if spiking else ConvNorm
        self.position = last(embed_dim, embed_dim, kernel=3)

    def forward(self, x: Tensor) -> Tensor:
        for stage, half in zip(self.stages, self.halve, strict=True):
            x = stage(x)
            x = halve(x) if half else x
        return x + self.position(x) if self.shortcut else self.position(x)


@register.embedding("ms_sps", source="Yao et al. 2023 (SDT), arXiv:2307.01694; BICLab/Spike-Driven-Transformer")
class MembraneSPS(nn.Module):
    """SDT's patch splitting: as `sps`, but a membrane potential leaves it, `[T, B, D, H', W']`, real-valued.

    The last stage pools between norm and neuron, and what was pooled is the shortcut around the position
    stage: norm(conv(neuron(u))) + u. (The authors' code also builds a neuron `rpe_lif` that it never calls.)
    """

    def __init__(self, in_channels: int, embed_dim: int, step: int = 4, node: str = "lif", pooling: str = "0011"):
        super().__init__()
        self.halve = halvings(pooling)
        self.stages = _stages(in_channels, embed_dim, node, step)
        self.position = ConvNorm(embed_dim, embed_dim, kernel=3)

    def forward(self, x: Tensor) -> Tensor:
        for stage, half in zip(self.stages[:-1], self.halve, strict=False):
            x = stage(x)
            x = halve(x) if half else x
        last = self.stages[-1]
        u = ConvNorm.forward(last, x)
        u = halve(u) if self.halve[-1] else u
        return self.position(last.node(u)) + u


@register.embedding("sgl_tokenizer", source="Zhang et al. 2024 (SGLFormer), fnins.2024.1371290; ZhangHanN1/SGLFormer")
class SGLTokenizer(nn.Module):
    """SGLFormer's stem and tokenizer: five convolution stages, `[T, B, C_in, H, W]` -> spikes `[T, B, D, H', W']`.

    D / 6, D / 4, D / 2, D and D channels, rounded down. `pooling` is of the last four stages, between norm and
    neuron; the STEP benchmark's form has none ("0000"), so that every pixel is a token.
    """

    def __init__(self, in_channels: int, embed_dim: int, step: int = 4, node: str = "lif", pooling: str = "0011"):
        super().__init__()
        if embed_dim < 6:
            raise UserError(f"sgl_tokenizer: embed_dim must be at least 6, not {embed_dim}")
        widths = pairwise([in_channels, embed_dim // 6, embed_dim // 4, embed_dim // 2, embed_dim, embed_dim])
        stage = partial(ConvNormNode, node=node, step=step, kernel=3)
        stages = zip(widths, [False, *halvings(pooling)], strict=True)
        self.stages = nn.Sequential(*(stage(*width, pool=pool) for width, pool in stages))

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(x)
