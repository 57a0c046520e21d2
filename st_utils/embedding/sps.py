"""Spiking patch splitting (SPS) of Spikformer, and the forms of SDT (`ms_sps`) and SGLFormer (`sgl_tokenizer`).

Example:
    import torch
    import zoo
    from registry import create

    sps = create("embedding", 'sps(pooling="1111")', in_channels=3, embed_dim=64, step=4)
    sps(torch.rand(4, 2, 3, 32, 32)).shape  # -> torch.Size([4, 2, 64, 2, 2])
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from torch import Tensor, nn

from registry import register
from st_utils.embedding.stages import parse_pooling, stage_widths
from st_utils.errors import UserError
from st_utils.layer import ConvNorm, ConvNormNode, halve


def _stages(in_channels: int, embed_dim: int, node: str, step: int) -> nn.ModuleList:
    widths = pairwise(stage_widths(in_channels, embed_dim))
    return nn.ModuleList(ConvNormNode(before, after, node, step, kernel=3) for before, after in widths)


@register.embedding("sps", source="Zhou et al. 2023 (Spikformer), arXiv:2209.15425; ZK-Zhou/spikformer")
class SPS(nn.Module):
    """Spiking patch splitting: four convolution stages, then a position stage x + neuron(norm(conv 3 x 3(x))).

    `[T, B, C_in, H, W]` -> `[T, B, D, H', W']`, sums of two spikes (0, 1, 2). A stage is convolution 3 x 3, norm,
    neuron and, where `pooling` has a 1, max-pooling of the spikes; the stages have D / 8, D / 4, D / 2 and D channels.

    Args:
        pooling: "0011" for CIFAR, "1111" for event data and ImageNet (the authors' code).
        spiking: false leaves the neuron out of the position stage, x + norm(conv(x)): real values (SWFormer).
        shortcut: false leaves x out of the position stage; with `spiking=false` it is norm(conv(x)), as in
            Spikingformer, whose neurons come before the convolutions (arXiv:2304.11954).

    Raises:
        UserError: `embed_dim` is not a multiple of 8, or `pooling` is malformed.
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
        self.halve = parse_pooling(pooling)
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
    """SDT's patch splitting: as `sps`, with a membrane shortcut: u + norm(conv 3 x 3(neuron(u))).

    `[T, B, C_in, H, W]` -> `[T, B, D, H', W']`, membrane potentials. u is the last stage's potential before its neuron,
    pooled where `pooling` says so. (The authors' code also builds a neuron `rpe_lif` that it never calls.)

    Args:
        pooling: "0011" or "1111" as for `sps`.

    Raises:
        UserError: `embed_dim` is not a multiple of 8, or `pooling` is malformed.
    """

    def __init__(self, in_channels: int, embed_dim: int, step: int = 4, node: str = "lif", pooling: str = "0011"):
        super().__init__()
        self.halve = parse_pooling(pooling)
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
    """SGLFormer's stem and tokenizer: five stages of convolution 3 x 3, norm, max-pooling, neuron.

    `[T, B, C_in, H, W]` -> `[T, B, D, H', W']`, spikes. The stages have D / 6, D / 4, D / 2, D and D channels, rounded
    down.

    Args:
        pooling: of the last four stages; the first never pools. The STEP benchmark's form is "0000": one token per
            pixel.

    Raises:
        UserError: `embed_dim` is less than 6, or `pooling` is malformed.
    """

    def __init__(self, in_channels: int, embed_dim: int, step: int = 4, node: str = "lif", pooling: str = "0011"):
        super().__init__()
        if embed_dim < 6:
            raise UserError(f"sgl_tokenizer: embed_dim must be at least 6, not {embed_dim}")
        widths = pairwise([in_channels, embed_dim // 6, embed_dim // 4, embed_dim // 2, embed_dim, embed_dim])
        stage = partial(ConvNormNode, node=node, step=step, kernel=3)
        stages = zip(widths, [False, *parse_pooling(pooling)], strict=True)
        self.stages = nn.Sequential(*(stage(*width, pool=pool) for width, pool in stages))

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(x)
