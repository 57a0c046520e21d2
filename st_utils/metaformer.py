"""The skeleton of Meta-SpikeFormer and E-SpikeFormer: a convolution stem, then stages of transformer blocks."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from registry import Spec
from st_utils.block import Block
from st_utils.embedding.meta_stem import Downsample
from st_utils.errors import UserError
from st_utils.layer import init_trunc_normal
from st_utils.node.base import adapt_node
from st_utils.transformer import SpikingTransformer, drop_path_rates


class SpikingMetaformer(SpikingTransformer):
    """`[B, C, H, W]` images or `[B, T, C, H, W]` frames -> logits `[B, num_classes]`; see SpikingTransformer.

    Membrane potentials run along all shortcuts. Each stage of transformer blocks after the first begins with a
    change of width that keeps the size. The neuron before the head is not normalised where it could be (`ilif`).

    Args:
        embed_dim: the channels of the stages: two of the stem, then one for each of the transformer's. One number D
            stands for (D / 4, D / 2, D, 5 D / 4), as all published sizes of Meta-SpikeFormer have it.
        depth: transformer blocks of each of its stages; one number of blocks goes 3 : 1 to two stages.
        local_attention, layer_scale: of the blocks, see Block.
        distill: a second head, to be taught by another network. Evaluation gives the mean of the two; training
            both, `[2, B, num_classes]` (`[2, T, B, num_classes]` with per_step), the class head first.
        head_init: the heads' initial weights: truncated normal of 0.02, or Xavier uniform.
        legacy_real_head: the class head sees the real-valued mean over tokens, not the neuron's spikes.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        img_size: int | tuple[int, int],
        step: int,
        embed_dim: int | tuple[int, ...],
        depth: int | tuple[int, ...],
        num_heads: int,
        mlp_ratio: float,
        embedding: str | Spec,
        attention: str | Spec,
        mlp: str | Spec,
        node: str | Spec,
        encoder: str | Spec,
        drop_path: float,
        distill: bool,
        local_attention: str | Spec | None = None,
        layer_scale: float | None = None,
        head_init: Literal["trunc_normal", "xavier"] = "trunc_normal",
        legacy_real_head: bool = False,
    ):
        *stem, first = stage_widths(embed_dim)[:3]
        dims = stage_widths(embed_dim)[2:]
        depths = stage_depths(depth, len(dims))
        rates = iter(drop_path_rates(drop_path, sum(depths)))

        def stage(dim: int, blocks: int) -> nn.Module:
            arguments = (dim, num_heads, mlp_ratio, step, attention, mlp, node, "membrane")
            more = {"local_attention": local_attention, "layer_scale": layer_scale}
            return nn.Sequential(*(Block(*arguments, next(rates), **more) for _ in range(blocks)))

        blocks = [stage(first, depths[0])]
        for (before, dim), count in zip(pairwise(dims), depths[1:], strict=True):
            blocks += [Downsample(before, dim, node, step, stride=1), stage(dim, count)]
        super().__init__(
            num_classes=num_classes,
            in_channels=in_channels,
            img_size=img_size,
            step=step,
            embed_dim=first,
            encoder=encoder,
            embedding=embedding,
            node=node,
            blocks=blocks,
            dim=dims[-1],
            head_node=adapt_node(node, normalize=False),
            widths=tuple(stem),
            mlp_ratio=mlp_ratio,
        )
        self.legacy_real_head = legacy_real_head
        self.head_kd = nn.Linear(dims[-1], num_classes) if distill else None
        init_trunc_normal(self, kernels=(), linear=True)
        if head_init == "xavier":
            for head in (self.head, self.head_kd) if distill else (self.head,):
                nn.init.xavier_uniform_(head.weight)

    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        pooled = self.pooled(x)
        spikes = self.head_node(pooled).flatten(2)
        logits = self.head(pooled.flatten(2) if self.legacy_real_head else spikes)
        if self.head_kd is not None:
            both = torch.stack([logits, self.head_kd(spikes)])
            logits = both if self.training else both.mean(0)
        return logits if per_step else logits.mean(-3)


def stage_widths(embed_dim: int | tuple[int, ...]) -> tuple[int, ...]:
    """Channels of the stem's two stages and of each of the transformer's. Raises UserError."""
    if isinstance(embed_dim, tuple):
        if len(embed_dim) < 3 or min(embed_dim) < 2:
            raise UserError(f"embed_dim must be one number or at least 3, each at least 2, not {list(embed_dim)}")
        return embed_dim
    if embed_dim < 8 or embed_dim % 8:
        raise UserError(f"embed_dim must be a multiple of 8, or the width of each stage, not {embed_dim}")
    return embed_dim // 4, embed_dim // 2, embed_dim, embed_dim * 5 // 4


def stage_depths(depth: int | tuple[int, ...], stages: int) -> tuple[int, ...]:
    """Transformer blocks of each stage. Raises UserError."""
    if isinstance(depth, int):
        if stages > 2:
            raise UserError(f"depth must give the blocks of {stages} stages, not one number")
        depth = (depth - depth // 4, depth // 4) if stages == 2 else (depth,)
    if len(depth) != stages or min(depth) < 0:
        raise UserError(f"depth must give the blocks of {stages} stages, as many as embed_dim has, not {list(depth)}")
    return depth
