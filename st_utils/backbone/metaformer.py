"""The skeleton of Meta-SpikeFormer and E-SpikeFormer: a convolutional stem, then stages of transformer blocks.

Example:
    from st_utils.backbone.metaformer import stage_depths, stage_widths

    stage_widths(embed_dim=256)  # -> (64, 128, 256, 320)
    stage_depths(depth=8, stages=2)  # -> (6, 2)
"""

from __future__ import annotations

from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from registry import Spec
from st_utils.backbone.arguments import MetaformerArguments, StagedArguments
from st_utils.backbone.transformer import SpikingTransformer, drop_path_rates
from st_utils.embedding.meta_stem import Downsample
from st_utils.errors import UserError
from st_utils.layer import init_trunc_normal
from st_utils.layer.block import Block


class SpikingMetaformer(
    SpikingTransformer,
    img_size=224,
    embedding="meta_stem",
    attention="sdsa3",
    shortcut="membrane",
    spiking_head=True,
):
    """Spiking transformer in stages: `meta_stem`, then stages of blocks of different widths, membrane shortcuts.

    Images `[B, C, H, W]` or frames `[B, T, C, H, W]` -> logits `[B, num_classes]`. Each stage after the first begins
    with neuron, convolution 3 x 3 and norm to its own width; the token grid stays.

    Args:
        embed_dim: widths (w2, w3, s1, s2, ...): the stem's second and third, then one per stage of transformer blocks.
            `embed_dim=256` means (64, 128, 256, 320), the ratio of all published sizes of Meta-SpikeFormer.
        depth: number of transformer blocks per stage. `depth=8` means (6, 2) for two stages.
        local_attention, layer_scale: see `Block` in `st_utils/layer/block.py`.
        distill: true adds a second head for distillation from a teacher. In evaluation the logits are the mean of both
            heads. In training both are returned, `[2, B, num_classes]`, or `[2, T, B, num_classes]` with `per_step`;
            the class head comes first.
        head_init: initial weights of the heads, truncated normal with std 0.02 or Xavier uniform.
        legacy_real_head: true gives the class head the mean of the membrane potentials over tokens, not the spikes of
            the neuron before the head.

    The other arguments are those of SpikingTransformer.

    Raises:
        UserError: `embed_dim` or `depth` does not give one number per stage.
    """

    def __init_subclass__(cls, **defaults: Unpack[MetaformerArguments]):  # typed: a checker knows the class keywords
        super().__init_subclass__(**defaults)

    def __init__(
        self,
        *,
        embed_dim: int | tuple[int, ...] = 512,
        depth: int | tuple[int, ...] = 8,
        num_heads: int = 8,
        local_attention: str | None = None,
        layer_scale: float | None = None,
        distill: bool = False,
        head_init: Literal["trunc_normal", "xavier"] = "trunc_normal",
        legacy_real_head: bool = False,
        **arguments: Unpack[StagedArguments],
    ):
        self.further = {"local_attention": local_attention, "layer_scale": layer_scale}
        super().__init__(embed_dim=embed_dim, depth=depth, num_heads=num_heads, **arguments)
        self.legacy_real_head = legacy_real_head
        self.head_kd = nn.Linear(self.head.in_features, self.head.out_features) if distill else None
        init_trunc_normal(self, kernels=(), linear=True)
        if head_init == "xavier":
            for head in (self.head, self.head_kd) if distill else (self.head,):
                nn.init.xavier_uniform_(head.weight)

    def make_embedding(self, embedding: str | Spec, embed_dim: int | tuple[int, ...], **offer: Any) -> nn.Module:
        *stem, first = stage_widths(embed_dim)[:3]  # w2, w3 and s1
        return super().make_embedding(embedding, embed_dim=first, widths=tuple(stem), **offer)

    def make_blocks(
        self, dim: int | tuple[int, ...], depth: int | tuple[int, ...], drop_path: float, **block: Any
    ) -> tuple[list[nn.Module], int]:
        dims = stage_widths(dim)[2:]
        depths = stage_depths(depth, len(dims))
        rates = iter(drop_path_rates(drop_path, sum(depths)))
        blocks: list[nn.Module] = []
        for before, width, count in zip((None, *dims), dims, depths, strict=False):
            if before is not None:  # stride 1: the width changes, the grid stays
                blocks.append(Downsample(before, width, node=block["node"], step=block["step"], stride=1))
            stage = (Block(width, drop_path=next(rates), **block, **self.further) for _ in range(count))
            blocks.append(nn.Sequential(*stage))
        return blocks, dims[-1]

    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        pooled = self.pooled(x)  # [T, B, D, 1, 1]
        spikes = self.head_node(pooled).flatten(2)  # [T, B, D]
        logits = self.head(pooled.flatten(2) if self.legacy_real_head else spikes)
        if self.head_kd is not None:
            both = torch.stack([logits, self.head_kd(spikes)])
            logits = both if self.training else both.mean(0)
        return logits if per_step else logits.mean(-3)  # over T, which is the second axis where both heads are returned


def stage_widths(embed_dim: int | tuple[int, ...]) -> tuple[int, ...]:
    """Widths of the stem's second and third stage and of each stage of blocks, from one number or all of them.

    Raises:
        UserError: one number that is not a multiple of 8, or fewer than 3 widths.
    """
    if isinstance(embed_dim, tuple):
        if len(embed_dim) < 3 or min(embed_dim) < 2:
            raise UserError(f"embed_dim must be one number or at least 3, each at least 2, not {list(embed_dim)}")
        return embed_dim
    if embed_dim < 8 or embed_dim % 8:
        raise UserError(f"embed_dim must be a multiple of 8, or the width of each stage, not {embed_dim}")
    return embed_dim // 4, embed_dim // 2, embed_dim, embed_dim * 5 // 4


def stage_depths(depth: int | tuple[int, ...], stages: int) -> tuple[int, ...]:
    """Number of transformer blocks of each stage, from one number (3 : 1 over two stages) or all of them.

    Raises:
        UserError: the number of depths is not the number of stages, or one is negative.
    """
    if isinstance(depth, int):
        if stages > 2:
            raise UserError(f"depth must give the blocks of {stages} stages, not one number")
        depth = (depth - depth // 4, depth // 4) if stages == 2 else (depth,)
    if len(depth) != stages or min(depth) < 0:
        raise UserError(f"depth must give the blocks of {stages} stages, as many as embed_dim has, not {list(depth)}")
    return depth
