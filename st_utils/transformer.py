"""The skeleton that the transformers share: encode, embed, blocks, pool, classify."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from registry import Spec, create, entry
from st_utils.node.base import build_node


class SpikingTransformer(nn.Module):
    """`[B, C, H, W]` images or `[B, T, C, H, W]` frames -> logits `[B, num_classes]`.

    With `per_step=True` the logits of every time step, `[T, B, num_classes]`, whose mean the others are.

    Args:
        embed_dim: the channels that leave the embedding.
        dim: the channels that leave the blocks, where they are others.
        head_node: a neuron before the head; none: the head sees what leaves the blocks.
        further: offered to the embedding too, where it takes it.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        in_channels: int,
        img_size: int | tuple[int, int],
        step: int,
        embed_dim: int,
        encoder: str | Spec,
        embedding: str | Spec,
        node: str | Spec,
        blocks: list[nn.Module],
        dim: int | None = None,
        head_node: str | Spec | None = None,
        **further: Any,
    ):
        super().__init__()
        dim = embed_dim if dim is None else dim
        offer = {"in_channels": in_channels, "embed_dim": embed_dim, "img_size": img_size, "step": step, "node": node}
        known = entry("embedding", embedding).params
        offer |= {name: value for name, value in further.items() if name in known}
        self.encoder = create("encoder", encoder, step=step)
        self.embedding = create("embedding", embedding, **offer)
        self.blocks = nn.Sequential(*blocks)
        self.head_node = build_node(head_node, step, dim) if head_node is not None else nn.Identity()
        self.head = nn.Linear(dim, num_classes)

    def pooled(self, x: Tensor) -> Tensor:
        """The mean over tokens of what leaves the blocks, `[T, B, D, 1, 1]`."""
        return self.blocks(self.embedding(self.encoder(x))).mean((-2, -1), keepdim=True)

    def features(self, x: Tensor) -> Tensor:
        """What the head sees, `[T, B, D]`: the mean over tokens, through the head's neuron where it has one."""
        return self.head_node(self.pooled(x)).flatten(2)

    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        logits = self.head(self.features(x))
        return logits if per_step else logits.mean(0)


def drop_path_rates(drop_path: float, depth: int) -> list[float]:
    """Stochastic depth grows linearly from 0 to `drop_path` along the blocks."""
    return [drop_path * i / max(1, depth - 1) for i in range(depth)]
