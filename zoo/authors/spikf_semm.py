"""Names, arguments and variants of the STEP benchmark's Spikformer with SEMM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry import Spec
from st_utils.errors import UserError
from zoo.authors.constructor import ConstructorArguments
from zoo.authors.published import Published
from zoo.authors.step_benchmark import (
    CONSTANTS,
    DEFAULTS,
    FOLDER,
    LIF,
    PATCH_RULES,
    SCALE,
    shared_arguments,
    with_threshold_of,
)
from zoo.authors.variants import Variant, Weights

EXPERTS = {"expert_dim": 96, "num_expert": 4, "expert_mode": "base"}
# The layers of the published model; their file has more, for other experiments.
LAYERS = {"attn_layer": "SSA", "embed_layer": "SPS"}
FREE = {
    **SCALE,
    "attention.num_expert": "the weights' names tell",
    "attention.expert_dim": "the weights' shapes tell",
}


def _our_arguments(file: str, args: ConstructorArguments, step: int) -> dict[str, Any]:
    if args["expert_mode"] != "base":
        raise UserError(f"expert_mode must be base, not {args['expert_mode']}: the authors' code runs no other")
    for name, layer in LAYERS.items():
        if args[name] != layer:
            raise UserError(f"{name} must be {layer}, not {args[name]}: write the spec by hand")
    experts = {"num_expert": args["num_expert"], "expert_dim": args["expert_dim"]}
    attention = Spec("semm", {**experts, "scale": args["attn_scale"], "legacy_router": True})
    return {**shared_arguments(args), "attention": attention}


def _variants(args: Mapping[str, Any], weights: Weights) -> list[Variant]:
    return [
        Variant({"attention": Spec("semm", {"legacy_router": True}), "node": with_threshold_of(LIF, weights)}, FREE)
    ]


PUBLISHED = Published(
    repositories=(FOLDER + "spikf_semm_cifar.py",),
    rules=(
        *PATCH_RULES,
        (r"block\.(\d+)\.attn\.(k|v|proj)_(\w+)\.(.+)", r"blocks.\1.attention.branch.\2.\3.\4"),
        (r"block\.(\d+)\.attn\.router1\.(.+)", r"blocks.\1.attention.branch.router.conv.\2"),
        (r"block\.(\d+)\.attn\.router2\.(.+)", r"blocks.\1.attention.branch.router.norm.\2"),
        (r"block\.(\d+)\.attn\.ff_list\.(\d+)\.unit_(\w+)\.(.+)", r"blocks.\1.attention.branch.q.\2.\3.\4"),
        (r"block\.(\d+)\.mlp\.(fc\d)_(\w+)\.(.+)", r"blocks.\1.mlp.branch.\2.\3.\4"),
        (r"block\.(\d+)\.mlp\.dw_(\w+)\.(.+)", r"blocks.\1.mlp.branch.depthwise.\2.\3"),
        (r"(head\..+)", r"\1"),
    ),
    unused=CONSTANTS,
    spec=_our_arguments,
    variants=_variants,
    defaults=lambda place, name: {**DEFAULTS, **EXPERTS, **LAYERS},
    further=True,
)
