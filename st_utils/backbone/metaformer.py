"""The skeleton of Meta-SpikeFormer and E-SpikeFormer: a convolution stem, then stages of transformer blocks."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from registry import Spec
from st_utils.backbone.transformer import SpikingTransformer, drop_path_rates
from st_utils.embedding.meta_stem import Downsample
from st_utils.errors import UserError
from st_utils.layer import init_trunc_normal
from st_utils.layer.block import Block


class SpikingMetaformer(
    SpikingTransformer,
    img_size=224,
    num_heads=8,
    embedding="meta_stem",
    attention="sdsa3",
    shortcut="membrane",
    spiking_head=True,
):
    """`[B, C, H, W]` images or `[B, T, C, H, W]` frames -> logits `[B, num_classes]`; see SpikingTransformer.

    Membrane potentials run along all shortcuts. Each stage of transformer blocks after the first begins with a
    change of width that keeps the size.

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
        embed_dim: int | tuple[int, ...] = 512,
        depth: int | tuple[int, ...] = 8,
        local_attention: str | None = None,
        layer_scale: float | None = None,
        distill: bool = False,
        head_init: Literal["trunc_normal", "xavier"] = "trunc_normal",
        legacy_real_head: bool = False,
        **settings: Any,
    ):
        self.further = {"local_attention": local_attention, "layer_scale": layer_scale}
        super().__init__(embed_dim=embed_dim, depth=depth, **settings)
        self.legacy_real_head = legacy_real_head
        self.head_kd = nn.Linear(self.head.in_features, self.head.out_features) if distill else None
        init_trunc_normal(self, kernels=(), linear=True)
        if head_init == "xavier":
            for head in (self.head, self.head_kd) if distill else (self.head,):
                nn.init.xavier_uniform_(head.weight)

    def make_embedding(self, embedding: str | Spec, embed_dim: int | tuple[int, ...], **offer: Any) -> nn.Module:
        *stem, first = stage_widths(embed_dim)[:3]
        return super().make_embedding(embedding, embed_dim=first, widths=tuple(stem), **offer)

    def make_blocks(
        self, dim: int | tuple[int, ...], depth: int | tuple[int, ...], drop_path: float, **block: Any
    ) -> tuple[list[nn.Module], int]:
        dims = stage_widths(dim)[2:]
        depths = stage_depths(depth, len(dims))
        rates = iter(drop_path_rates(drop_path, sum(depths)))
        blocks: list[nn.Module] = []
        for before, width, count in zip((None, *dims), dims, depths, strict=False):
            if before is not None:
                blocks.append(Downsample(before, width, block["node"], block["step"], stride=1))
            stage = (Block(width, drop_path=next(rates), **block, **self.further) for _ in range(count))
            blocks.append(nn.Sequential(*stage))
        return blocks, dims[-1]

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
