"""The skeleton that the transformers share: encode, embed, blocks, pool, classify."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from registry import Spec, create, entry
from st_utils.backbone.class_defaults import ClassDefaults
from st_utils.errors import UserError
from st_utils.kernels.common.layout import spatial_mean
from st_utils.layer.block import Block, Shortcut
from st_utils.node.base import adapt_node, build_node


class SpikingTransformer(ClassDefaults, nn.Module):
    """`[B, C, H, W]` images or `[B, T, C, H, W]` frames -> logits `[B, num_classes]`.

    With `per_step=True` the logits of every time step, `[T, B, num_classes]`, whose mean the others are. A model
    is a subclass with its own defaults (see ClassDefaults), and with `make_blocks` where its blocks differ.

    Args:
        embed_dim: the channels that leave the embedding.
        shortcut: what runs along the blocks' shortcuts, see Residual.
        mlp_node: the neuron of the MLPs, and before the head, where it differs from `node`.
        spiking_head: a neuron stands before the head, not normalised where it could be (`ilif`); else the head
            sees what leaves the blocks.
        drop_path: the last block's rate of stochastic depth, which grows from 0 along the blocks.
    """

    def __init__(
        self,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        img_size: int | tuple[int, int] = 32,
        step: int = 4,
        embed_dim: int = 384,
        depth: int = 4,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        embedding: str = "sps",
        attention: str | None = "ssa",
        mlp: str = "mlp",
        node: str = "lif",
        mlp_node: str | None = None,
        encoder: str = "direct",
        shortcut: Shortcut = "spike",
        spiking_head: bool = False,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.encoder = create("encoder", encoder, step=step)
        self.embedding = self.make_embedding(
            embedding,
            in_channels=in_channels,
            embed_dim=embed_dim,
            img_size=img_size,
            step=step,
            node=node,
            mlp_ratio=mlp_ratio,
        )
        parts = {"attention": attention, "mlp": mlp, "node": node, "mlp_node": mlp_node, "shortcut": shortcut}
        grid = cache(lambda: self.token_grid(in_channels, img_size, step))
        blocks, dim = self.make_blocks(
            embed_dim, depth, drop_path, num_heads=num_heads, mlp_ratio=mlp_ratio, step=step, grid=grid, **parts
        )
        self.blocks = nn.Sequential(*blocks)
        head_node = adapt_node(node if mlp_node is None else mlp_node, normalize=False)
        self.head_node = build_node(head_node, step, dim) if spiking_head else nn.Identity()
        self.head = nn.Linear(dim, num_classes)

    def make_embedding(self, embedding: str | Spec, **offer: Any) -> nn.Module:
        """The part that gives `[T, B, D, H, W]`; of what is offered it takes what it knows."""
        known = entry("embedding", embedding).params
        return create("embedding", embedding, **{k: v for k, v in offer.items() if k in known})

    def token_grid(self, in_channels: int, img_size: int | tuple[int, int], step: int) -> tuple[int, int]:
        """Rows and columns of the tokens that the embedding gives, by embedding an empty image."""
        size = (img_size, img_size) if isinstance(img_size, int) else img_size
        with torch.no_grad():
            tokens = self.embedding.eval()(torch.zeros(step, 1, in_channels, *size))
        self.embedding.train()
        return tuple(tokens.shape[-2:])

    def make_blocks(self, dim: int, depth: int, drop_path: float, **block: Any) -> tuple[list[nn.Module], int]:
        """The blocks, from `[T, B, dim, H, W]` on, and the channels that leave them; `block`: further of Block."""
        return [Block(dim, drop_path=rate, **block) for rate in drop_path_rates(drop_path, depth)], dim

    def pooled(self, x: Tensor) -> Tensor:
        """The mean over tokens of what leaves the blocks, `[T, B, D, 1, 1]`."""
        return spatial_mean(self.blocks(self.embedding(self.encoder(x))))

    def features(self, x: Tensor) -> Tensor:
        """What the head sees, `[T, B, D]`: the mean over tokens, through the head's neuron where it has one."""
        return self.head_node(self.pooled(x)).flatten(2)

    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        logits = self.head(self.features(x))
        return logits if per_step else logits.mean(0)


def drop_path_rates(drop_path: float, depth: int) -> list[float]:
    """Stochastic depth grows linearly from 0 to `drop_path` along the blocks."""
    return [drop_path * i / max(1, depth - 1) for i in range(depth)]


def halved(grid: Callable[[], tuple[int, int]]) -> Callable[[], tuple[int, int]]:
    """The rows and columns after max-pooling to half the size."""
    return lambda: tuple((length + 1) // 2 for length in grid())


def per_stage(embed_dim: int | tuple[int, ...], **others: int | tuple[int, ...]) -> list[dict[str, int]]:
    """The arguments of each stage; a number stands for all stages', of embed_dim for the last's. Raises UserError."""
    counts = {len(value) for value in (embed_dim, *others.values()) if isinstance(value, tuple)} or {1}
    if len(counts) > 1:
        raise UserError(f"embed_dim, {', '.join(others)} must be of the same number of stages")
    (count,) = counts
    widths = embed_dim if isinstance(embed_dim, tuple) else [embed_dim >> n for n in reversed(range(count))]
    columns = [widths, *(value if isinstance(value, tuple) else (value,) * count for value in others.values())]
    if not count or min(map(min, columns)) < 1:
        raise UserError("each stage needs at least one of everything")
    return [dict(zip(("embed_dim", *others), values, strict=True)) for values in zip(*columns, strict=True)]
