"""QKFormer: a hierarchy of stages, with Q-K attention in the early ones and self-attention in the last.

    from zoo import create_model

    create_model("qkformer(embed_dim=64, depth=[1, 1])").stage_dims(64)  # [32, 64]

Zhou et al. 2024, arXiv:2403.16552. Authors' weights and arguments: zoo/authors/qkformer.py.
"""

from __future__ import annotations

from typing import Any, Unpack

from torch import Tensor, nn

from registry import Spec, register
from st_utils.backbone.arguments import StagedArguments
from st_utils.backbone.transformer import SpikingTransformer, drop_path_rates, halved
from st_utils.embedding.speds import DeformedShortcut
from st_utils.errors import UserError
from st_utils.layer import init_trunc_normal
from st_utils.layer.block import Block
from zoo.authors.qkformer import PUBLISHED


@register.model("qkformer", source="Zhou et al. 2024, arXiv:2403.16552; zhouchenlin2096/QKFormer")
class QKFormer(
    SpikingTransformer,
    embedding="speds(stride=1)",
    attention="ssa(qkv_bias=false)",
):
    """Stages of Q-K attention, then self-attention. Default: HST-4-384 for CIFAR-10, 6,706,234 parameters.

    Between two stages, 3 convolutions with a shortcut halve the rows and columns and double the channels. Spikes
    are added, so integers run along the shortcuts. No neuron stands before the head.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder                        st_utils/encoder/direct.py   [T, B, 3, 32, 32]    the image at every step
        embedding                      st_utils/embedding/speds.py  [T, B, 96, 32, 32]   3 convolutions with a shortcut
        blocks.0.0                     st_utils/layer/block.py      [T, B, 96, 32, 32]   attention and MLP
        blocks.0.0.attention.branch    st_utils/attention/qk.py     [T, B, 96, 32, 32]   qk_token: K masked by Q
        blocks.1                       st_utils/embedding/speds.py  [T, B, 192, 16, 16]  between two stages
        blocks.2.0                     st_utils/layer/block.py      [T, B, 192, 16, 16]  as blocks.0.0
        blocks.3                       st_utils/embedding/speds.py  [T, B, 384, 8, 8]    between two stages
        blocks.4.0-1                   st_utils/layer/block.py      [T, B, 384, 8, 8]    attention and MLP
        blocks.4.0-1.attention.branch  st_utils/attention/ssa.py    [T, B, 384, 8, 8]    scale Q K' V, 8 heads
        blocks.4.0-1.mlp.branch        st_utils/mlp/mlp.py          [T, B, 384, 8, 8]    384 -> 1536 -> 384 channels
        head_node                      torch.nn                     [T, B, 384, 1, 1]    nothing, on the mean over H, W
        head                           torch.nn                     [T, B, 10]           linear
        model                          zoo/qkformer.py              [B, 10]              the mean over T

    ImageNet's HST-10-384: `qkformer(depth=[1, 2, 7], num_heads=6, embedding=speds(stride=4), early_pooling=true,
    img_size=224)`. Events: `qkformer(embed_dim=256, depth=[1, 1], num_heads=16, mlp_ratio=1, embedding=speds(stride=8),
    img_size=128)`.

    Differs from the authors' code: the samples of a batch do not touch each other (see legacy_batch_leak); `drop_path`
    above 0 is applied (theirs takes it and never applies it); `num_heads` is used (their CIFAR and event classes
    always have 8 and 16); images need not be square (theirs swaps rows and columns).

    Args:
        embed_dim: channels of the last stage. Each earlier stage has half as many as the next.
        depth: blocks of each stage. A number n means [n] for n = 1, [1, 1] for n = 2 and [1, 1, n - 2] above.
        attention: attention of the last stage.
        token_attention: attention of the earlier stages: `qk_token`, `qk_channel` or any other.
        early_pooling: pool after the first of the two convolutions between stages (ImageNet), not after the second.
        legacy_batch_leak: run the neuron after the last stage's attention over T * B steps as one sequence, as the
            authors' code does. Each sample then starts at the membrane potential that the sample before it left.
    """

    published = PUBLISHED

    def __init__(
        self,
        *,
        embed_dim: int = 384,
        depth: int | tuple[int, ...] = 4,
        num_heads: int = 8,
        token_attention: str = "qk_token",
        early_pooling: bool = False,
        legacy_batch_leak: bool = False,
        **arguments: Unpack[StagedArguments],
    ):
        self.token_attention, self.early_pooling = token_attention, early_pooling
        self.depths = stage_depths(depth)
        super().__init__(embed_dim=embed_dim, depth=depth, num_heads=num_heads, **arguments)
        if legacy_batch_leak:
            if arguments.get("shortcut", "spike") != "spike":
                raise UserError("legacy_batch_leak needs shortcut=spike: it is of the neuron after the attention")
            for block in self.blocks[-1]:
                block.attention.node = _BatchLeak(block.attention.node)
        init_trunc_normal(self, kernels=(), linear=True)

    def stage_dims(self, embed_dim: int) -> list[int]:
        """The channels of each stage. Raises UserError."""
        parts = [2**n for n in range(len(self.depths))]
        if embed_dim % parts[-1]:
            raise UserError(
                f"embed_dim={embed_dim} is not a multiple of {parts[-1]}, for qkformer with {len(parts)} stages"
            )
        return [embed_dim // part for part in reversed(parts)]

    def make_embedding(self, embedding: str | Spec, embed_dim: int, **offer: Any) -> nn.Module:
        return super().make_embedding(embedding, embed_dim=self.stage_dims(embed_dim)[0], **offer)

    def make_blocks(
        self, dim: int, depth: int | tuple[int, ...], drop_path: float, **block: Any
    ) -> tuple[list[nn.Module], int]:
        attention, grid = block.pop("attention"), block.pop("grid")
        rates = iter(drop_path_rates(drop_path, sum(self.depths)))
        modules: list[nn.Module] = []
        before = None
        for width, count in zip(self.stage_dims(dim), self.depths, strict=True):
            if before:
                pools = (self.early_pooling, not self.early_pooling)
                modules.append(DeformedShortcut((before, width, width), pools, block["node"], block["step"]))
                grid = halved(grid)
            mixer = attention if width == dim else self.token_attention
            stage = (Block(width, drop_path=next(rates), attention=mixer, grid=grid, **block) for _ in range(count))
            modules.append(nn.Sequential(*stage))
            before = width
        return modules, dim


def stage_depths(depth: int | tuple[int, ...]) -> tuple[int, ...]:
    """Blocks of each stage. Raises UserError."""
    if isinstance(depth, int):
        depth = (1, 1, depth - 2) if depth > 2 else (1,) * depth
    if not depth or min(depth) < 0:
        raise UserError(f"qkformer: depth must be at least 1, or give the blocks of each stage, not {list(depth)}")
    return depth


class _BatchLeak(nn.Module):
    """The authors' neuron after self-attention: it takes `[T, B, ...]` for one sequence of T * B steps."""

    def __init__(self, node: nn.Module):
        super().__init__()
        self.node = node

    def forward(self, x: Tensor) -> Tensor:
        return self.node(x.flatten(0, 1).unsqueeze(1)).view(x.shape)
