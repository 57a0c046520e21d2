"""The skeleton of the transformers: encoder, embedding, blocks, mean over tokens, linear head.

Example:
    import torch
    import zoo
    from st_utils.backbone.transformer import SpikingTransformer

    model = SpikingTransformer(embed_dim=64, depth=2, num_heads=4, attention="sdsa", step=4)
    model(torch.rand(2, 3, 32, 32)).shape  # -> torch.Size([2, 10])
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from registry import Spec, create, entry
from st_utils.backbone.arguments import TransformerArguments
from st_utils.backbone.class_defaults import ClassDefaults
from st_utils.errors import UserError
from st_utils.kernels.common.layout import spatial_mean
from st_utils.layer.block import Block, Shortcut
from st_utils.node.base import adapt_node, build_node


class SpikingTransformer(ClassDefaults, nn.Module):
    """Spiking transformer: encoder, embedding, blocks, mean over tokens, linear head, mean of the logits over time.

    Images `[B, C, H, W]` or frames `[B, T, C, H, W]` -> logits `[B, num_classes]`. With `per_step=True`, returns the
    logits of each time step, `[T, B, num_classes]`; the default returns their mean over T.

        encoder      [B, C, H, W]        -> [T, B, C, H, W]      st_utils/encoder/
        embedding                        -> [T, B, D, H', W']    st_utils/embedding/
        blocks       depth times                                 st_utils/layer/block.py
            attention                    -> the same shape       st_utils/attention/
            mlp                          -> the same shape       st_utils/mlp/
        mean over H', W'                 -> [T, B, D]
        head                             -> [T, B, num_classes]

    A model is a subclass with its own default arguments (`class_defaults.py`), and with its own `make_blocks` where
    its blocks differ.

    Args:
        img_size: H = W in pixels, or (H, W).
        embed_dim: channels D of the tokens.
        depth: number of blocks.
        num_heads: offered to the attentions.
        mlp_ratio: hidden channels per channel in the MLPs.
        embedding, attention, mlp, node, encoder: specs of the parts; `attention=none` leaves the MLPs only.
        mlp_node: spec of the neurons of the MLPs and before the head; `none` is `node`.
        shortcut: "spike" or "membrane", see `Residual` in `st_utils/layer/block.py`.
        spiking_head: true puts a neuron before the head; a neuron that can normalise its output (`ilif`) does not
            there. false gives the head the output of the blocks.
        drop_path: stochastic depth rate of the last block; it grows linearly from 0 at the first.
    """

    def __init_subclass__(cls, **defaults: Unpack[TransformerArguments]):  # typed: a checker knows the class keywords
        super().__init_subclass__(**defaults)

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
        grid = cache(
            lambda: self.token_grid(in_channels, img_size, step)
        )  # lazy: a forward pass, and few attentions ask
        blocks, dim = self.make_blocks(
            embed_dim, depth, drop_path, num_heads=num_heads, mlp_ratio=mlp_ratio, step=step, grid=grid, **parts
        )
        self.blocks = nn.Sequential(*blocks)
        head_node = adapt_node(node if mlp_node is None else mlp_node, normalize=False)
        self.head_node = build_node(head_node, step, dim) if spiking_head else nn.Identity()
        self.head = nn.Linear(dim, num_classes)

    def make_embedding(self, embedding: str | Spec, **offer: Any) -> nn.Module:
        """Build the embedding, with those of the offered arguments that its constructor names."""
        known = entry("embedding", embedding).params
        return create("embedding", embedding, **{k: v for k, v in offer.items() if k in known})

    def token_grid(self, in_channels: int, img_size: int | tuple[int, int], step: int) -> tuple[int, int]:
        """(rows, columns) of the token grid, found by embedding an image of zeros."""
        size = (img_size, img_size) if isinstance(img_size, int) else img_size
        with torch.no_grad():
            tokens = self.embedding.eval()(torch.zeros(step, 1, in_channels, *size))
        self.embedding.train()
        if not isinstance(tokens, Tensor) or tokens.dim() != 5:
            found = list(tokens.shape) if isinstance(tokens, Tensor) else f"a {type(tokens).__name__}"
            raise UserError(f"embedding {self.embedding.spec} returns {found}, not [T, B, embed_dim, H', W']")
        return tuple(tokens.shape[-2:])

    def make_blocks(self, dim: int, depth: int, drop_path: float, **block: Any) -> tuple[list[nn.Module], int]:
        """The blocks, for input `[T, B, dim, H, W]`, and the number of channels of their output.

        Args:
            block: further arguments of `Block`: num_heads, mlp_ratio, step, grid, attention, mlp, node, mlp_node,
                shortcut.
        """
        return [Block(dim, drop_path=rate, **block) for rate in drop_path_rates(drop_path, depth)], dim

    def pooled(self, x: Tensor) -> Tensor:
        """The blocks' output, averaged over tokens, `[T, B, D, 1, 1]`."""
        return spatial_mean(self.blocks(self.embedding(self.encoder(x))))

    def features(self, x: Tensor) -> Tensor:
        """The input of the head, `[T, B, D]`: the mean over tokens, through the head's neuron if there is one."""
        return self.head_node(self.pooled(x)).flatten(2)

    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        logits = self.head(self.features(x))
        return logits if per_step else logits.mean(0)


def drop_path_rates(drop_path: float, depth: int) -> list[float]:
    """The stochastic depth rate of each of `depth` blocks, growing linearly from 0 to `drop_path`."""
    return [drop_path * i / max(1, depth - 1) for i in range(depth)]


def halved(grid: Callable[[], tuple[int, int]]) -> Callable[[], tuple[int, int]]:
    """The token grid after max-pooling to half the size, rounded up; a function, as the grid itself is."""
    return lambda: tuple((length + 1) // 2 for length in grid())


def per_stage(embed_dim: int | tuple[int, ...], **others: int | tuple[int, ...]) -> list[dict[str, int]]:
    """The arguments of each stage as one dict per stage.

    One number for `others` holds in every stage; one for `embed_dim` is the last stage's and halves towards the
    first: `embed_dim=64` means [16, 32, 64] for three stages.

    Raises:
        UserError: the arguments have different numbers of stages, or a number is less than 1.
    """
    counts = {len(value) for value in (embed_dim, *others.values()) if isinstance(value, tuple)} or {1}
    if len(counts) > 1:
        raise UserError(f"embed_dim, {', '.join(others)} must be of the same number of stages")
    (count,) = counts
    widths = embed_dim if isinstance(embed_dim, tuple) else [embed_dim >> n for n in reversed(range(count))]
    columns = [widths, *(value if isinstance(value, tuple) else (value,) * count for value in others.values())]
    if not count or min(map(min, columns)) < 1:
        raise UserError("each stage needs at least one of everything")
    return [dict(zip(("embed_dim", *others), values, strict=True)) for values in zip(*columns, strict=True)]
