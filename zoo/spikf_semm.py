"""Spikformer with the spiking experts mixture in place of attention and MLP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry import Spec, register
from st_utils.backbone.transformer import SpikingTransformer
from st_utils.errors import UserError
from st_utils.layer import init_trunc_normal
from st_utils.papers import SEMM
from zoo.authors_form import Form, Weights
from zoo.constructor import Constructor
from zoo.published import Published
from zoo.step_benchmark import CONSTANTS, DEFAULTS, FOLDER, LIF, PATCH_RULES, SCALE, arguments, node_of

EXPERTS = {"expert_dim": 96, "num_expert": 4, "expert_mode": "base"}
# "SSA" and "SPS" are theirs; their file has further parts, for other experiments
LAYERS = {"attn_layer": "SSA", "embed_layer": "SPS"}
FREE = {
    **SCALE,
    "attention.num_expert": "the weights' names tell",
    "attention.expert_dim": "the weights' shapes tell",
}


def _authors_arguments(file: str, args: Constructor, step: int) -> dict[str, Any]:
    if args["expert_mode"] != "base":
        raise UserError(f"expert_mode must be base, not {args['expert_mode']}: the authors' code runs no other")
    for name, layer in LAYERS.items():
        if args[name] != layer:
            raise UserError(f"{name} must be {layer}, not {args[name]}: write the spec by hand")
    experts = {"num_expert": args["num_expert"], "expert_dim": args["expert_dim"]}
    attention = Spec("semm", {**experts, "scale": args["attn_scale"], "legacy_router": True})
    return {**arguments(args), "attention": attention}


def _authors_forms(args: Mapping[str, Any], weights: Weights) -> list[Form]:
    return [Form({"attention": Spec("semm", {"legacy_router": True}), "node": node_of(LIF, weights)}, FREE)]


@register.model(
    "spikf_semm",
    aliases=("spikformer_semm",),
    source=f"{SEMM}; Fancyssc/SpikingTransformerBenchmark",
)
class SpikformerSEMM(SpikingTransformer, attention="semm", mlp="emsp"):
    """Spikformer with experts mixture (the default is 4-384 for CIFAR, 7,739,242 parameters at 10 classes).

    Attention `semm` of 4 experts and MLP `emsp` in Spikformer's blocks. Differs from the authors' code in the
    router, whose output theirs reshapes where a transpose is meant (`semm(legacy_router=true)`), and in running at
    any number of steps and on any token grid (theirs: 4, and 8 x 8). `num_heads` is not used.
    """

    published = Published(
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
        spec=_authors_arguments,
        forms=_authors_forms,
        defaults=lambda place, name: {**DEFAULTS, **EXPERTS, **LAYERS},
        further=True,
    )

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        init_trunc_normal(self, kernels=(1,), linear=True)
