"""Names, arguments and variants of the STEP benchmark's SGLFormer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry import Spec
from zoo.authors.constructor import ConstructorArguments
from zoo.authors.published import Published
from zoo.authors.step_benchmark import CONSTANTS, DEFAULTS, FOLDER, LIF, SCALE, shared_arguments, with_threshold_of
from zoo.authors.variants import Variant, Weights

# The convolutions of a block: the authors' names -> ours.
LOCAL = {
    "dw_conv1": "near.branch.conv",
    "bn1": "near.branch.norm",
    "conv1": "mix.branch.expand.conv",
    "bn2": "mix.branch.expand.norm",
    "dw_conv2": "mix.branch.depthwise.conv",
    "bn3": "mix.branch.depthwise.norm",
    "conv2": "mix.branch.project.conv",
    "bn4": "mix.branch.project.norm",
}
FIXED = {
    "embedding": Spec("sgl_tokenizer", {"pooling": "0000"}),
    "attention": Spec("local_ssa", {"windows": 1, "legacy_shared_qkv": True}),
    "local_attention": Spec("local_ssa", {"legacy_shared_qkv": True, "legacy_strided": True, "legacy_reshape": True}),
    "head_tokens": 64,
}
FREE = {
    **SCALE,
    "local_attention.windows": "num_hw of the constructor: the weights do not tell",
}


def _our_arguments(file: str, args: ConstructorArguments, step: int) -> dict[str, Any]:
    scale, windows = args["attn_scale"], args["num_hw"]
    attentions = {
        "attention": FIXED["attention"].replace(scale=scale),
        "local_attention": FIXED["local_attention"].replace(scale=scale, windows=windows),
    }
    return {**shared_arguments(args), **FIXED, **attentions}


def _variants(args: Mapping[str, Any], weights: Weights) -> list[Variant]:
    """One variant. Their attentions share a scale: if the model's two differ, the local one counts as wrong."""
    scale = args["attention"].args.get("scale", 0.125) if isinstance(args["attention"], Spec) else 0.125
    local = FIXED["local_attention"].replace(scale=scale)
    return [Variant({**FIXED, "local_attention": local, "node": with_threshold_of(LIF, weights)}, FREE)]


PUBLISHED = Published(
    repositories=(FOLDER + "sglformer_cifar.py",),
    rules=(
        (r"stem\.stem_(conv|bn)\.(.+)", r"embedding.stages.0.\1.\2"),
        (r"tokenizer\.(conv|bn)(\d)\.(.+)", r"embedding.stages.\2.\1.\3"),
        *((rf"blocks\.(\d+)\.loc\.{theirs}\.(.+)", rf"blocks.\1.loc.{ours}.\2") for theirs, ours in LOCAL.items()),
        (r"blocks\.(\d+)\.ssa(\d)\.q_(\w+)\.(.+)", r"blocks.\1.pair\2.attention.branch.q.\3.\4"),
        (r"blocks\.(\d+)\.ssa(\d)\.pro_(\w+)\.(.+)", r"blocks.\1.pair\2.attention.branch.proj.\3.\4"),
        (r"blocks\.(\d+)\.mlp(\d)\.(fc\d)_(\w+)\.(.+)", r"blocks.\1.pair\2.mlp.branch.\3.\4.\5"),
        (r"full_size_conv\.(.+)", r"full_size.conv.\1"),
        (r"bn\.(.+)", r"full_size.norm.\1"),
        (r"(head\..+)", r"\1"),
    ),
    unused=(*CONSTANTS, r"blocks\.\d+\.ssa\d\.[kv]_(conv|bn)\..+"),
    spec=_our_arguments,
    variants=_variants,
    defaults=lambda place, name: {**DEFAULTS, "num_hw": 2},
)
