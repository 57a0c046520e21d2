"""QKFormer: a hierarchy of stages, Q-K attention in the early ones and self-attention in the last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from registry import Spec, register
from st_utils.backbone.transformer import SpikingTransformer, drop_path_rates, halved
from st_utils.embedding.speds import DeformedShortcut
from st_utils.errors import UserError
from st_utils.layer import init_trunc_normal
from st_utils.layer.block import Block
from zoo.authors_form import Form, Weights
from zoo.constructor import SPIKFORMER, Constructor, choose
from zoo.published import Published, inside, square

# Five model files in three forms; the number of heads is fixed in two of them, the depth in one.
FORMS = {
    "cifar": {"num_heads": 8, "legacy_batch_leak": True},
    "events": {"num_heads": 16, "embedding": Spec("speds", {"stride": 8}), "legacy_batch_leak": True},
    "imagenet": {"early_pooling": True, "embedding": Spec("speds", {"stride": 4}), "legacy_batch_leak": True},
}
FILES = {
    "cifar10/model.py": "cifar",
    "cifar100/model.py": "cifar",
    "cifar10-dvs/model.py": "events",
    "dvs128-gesture/model.py": "events",
    "imagenet/qkformer.py": "imagenet",
}


def _authors_arguments(file: str, args: Constructor, step: int) -> dict[str, Any]:
    name = choose(FILES, file, "file of QKFormer")
    shared = {
        "num_classes": args["num_classes"],
        "in_channels": args["in_channels"],
        "img_size": square(args["img_size_h"], args["img_size_w"]),
        "embed_dim": args["embed_dims"],
        "mlp_ratio": args["mlp_ratios"],
    }
    if name == "events":
        return shared | {"depth": (1, 1), "step": step} | FORMS[name]
    if name == "imagenet":
        shared |= {"depth": (1, 2, args["depths"] - 3), "num_heads": args["num_heads"]}
    else:
        shared |= {"depth": (1, 1, args["depths"] - 2)}
    return shared | {"step": args["T"]} | FORMS[name]


def _authors_forms(args: Mapping[str, Any], weights: Weights) -> list[Form]:
    """The ImageNet class calls the MLP's layers fc1 and fc2, the others mlp1 and mlp2; that for events has 2 stages."""
    return [
        Form(FORMS["cifar"], has=r"^stage3\.", lacks=r"\.fc1_conv\."),
        Form(FORMS["events"], lacks=r"^stage3\."),
        Form(FORMS["imagenet"], has=r"\.fc1_conv\."),
    ]


@register.model("qkformer", source="Zhou et al. 2024, arXiv:2403.16552; zhouchenlin2096/QKFormer")
class QKFormer(
    SpikingTransformer,
    num_heads=8,
    embedding="speds(stride=1)",
    attention="ssa(qkv_bias=false)",
):
    """QKFormer (the default is HST-4-384 for CIFAR: 6,706,234 parameters at 10 classes).

    Stages of blocks; between two of them the tokens' grid is halved and the channels doubled, by convolutions with a
    deformed shortcut. Every sum is one of spikes, no neuron stands before the head. ImageNet's HST-10-384 is
    `qkformer(depth=[1, 2, 7], num_heads=6, embedding=speds(stride=4), early_pooling=true, img_size=224)`; events'
    is `qkformer(embed_dim=256, depth=[1, 1], num_heads=16, mlp_ratio=1, embedding=speds(stride=8), img_size=128)`.

    Differs from the authors' code in keeping the samples of a batch apart (see legacy_batch_leak), in applying
    `drop_path` when it is above 0 (theirs takes it and never applies it), in taking `num_heads` at its word (their
    CIFAR and event forms have 8 and 16) and in images that are not square (theirs swaps rows and columns).

    Args:
        embed_dim: the channels of the last stage; each before it has half of the next one's.
        depth: the blocks of each stage; a number of blocks n is [n], [1, 1] or [1, 1, n - 2].
        attention: of the last stage.
        token_attention: of the stages before it: `qk_token`, `qk_channel` or any other.
        early_pooling: a stage's size is halved in the first of its two convolutions (ImageNet), not in the second.
        legacy_batch_leak: the neuron after the last stage's attention takes step and sample for one long time, so
            that each sample begins with the membrane potential that the one before it left.
    """

    published = Published(
        repositories=("zhouchenlin2096/QKFormer",),
        rules=(
            *inside(
                {"patch_embed1": "embedding", "patch_embed2": "blocks.1", "patch_embed3": "blocks.3"},
                (
                    (r"proj_res_(conv|bn)\.(\w+)", r"shortcut.\1.\2"),
                    (r"proj_(conv|bn)\.(\w+)", r"layers.0.\1.\2"),
                    (r"proj4_(conv|bn)\.(\w+)", r"layers.1.\1.\2"),
                ),
            ),
            (r"patch_embed1\.proj([123])_(conv|bn)\.(\w+)", r"embedding.layers.\1.\2.\3"),
            (r"patch_embed2\.proj3_(conv|bn)\.(\w+)", r"blocks.1.layers.0.\1.\2"),
            (r"patch_embed3\.proj3_(conv|bn)\.(\w+)", r"blocks.3.layers.0.\1.\2"),
            *inside(
                {r"stage1\.(\d+)": r"blocks.0.\1", r"stage2\.(\d+)": r"blocks.2.\1", r"stage3\.(\d+)": r"blocks.4.\1"},
                (
                    (r"(?:tssa|ssa|attn)\.(q|k|v|proj)_(conv|bn)\.(\w+)", r"attention.branch.\2.\3.\4"),
                    (r"mlp\.(?:mlp|fc)([12])_(conv|bn)\.(\w+)", r"mlp.branch.fc\2.\3.\4"),
                ),
            ),
            (r"(head\..+)", r"\1"),
        ),
        unused=(),
        spec=_authors_arguments,
        forms=_authors_forms,
        defaults=lambda place, name: SPIKFORMER | {"in_chans": 3, "no_weight_decay": None},
    )

    def __init__(
        self,
        *,
        depth: int | tuple[int, ...] = 4,
        token_attention: str = "qk_token",
        early_pooling: bool = False,
        legacy_batch_leak: bool = False,
        **settings: Any,
    ):
        self.token_attention, self.early_pooling = token_attention, early_pooling
        self.depths = stage_depths(depth)
        super().__init__(depth=depth, **settings)
        if legacy_batch_leak:
            if settings.get("shortcut", "spike") != "spike":
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
    """The authors' neuron of the self-attention: `[T, B, ...]` as one sequence of T * B steps."""

    def __init__(self, node: nn.Module):
        super().__init__()
        self.node = node

    def forward(self, x: Tensor) -> Tensor:
        return self.node(x.flatten(0, 1).unsqueeze(1)).view(x.shape)
