"""Names, arguments and variants of the STEP benchmark's TIM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from registry import Spec
from zoo.authors.constructor import ConstructorArguments
from zoo.authors.published import Published
from zoo.authors.step_benchmark import (
    ATTN_THRESHOLD,
    CONSTANTS,
    DEFAULTS,
    PATCH_RULES,
    SCALE,
    lif_of,
    shared_arguments,
    with_threshold_of,
)
from zoo.authors.variants import Variant, Weights

# BrainCog's LIF with its default surrogate, which no argument changes. TIM's two neurons ignore the model's.
NODE = Spec("lif", {"surrogate": Spec("qgate", {"strict": True})})
TIM_DEFAULTS = {**DEFAULTS, "step": 10, "in_channels": 2, "embed_dim": 256, "num_heads": 16, "attn_scale": 0.25}
TIM_DEFAULTS |= {"event_size": 64, "tim_alpha": 0.5}
FREE = {**SCALE, "attention.alpha": "tim_alpha of the constructor: the weights do not tell"}
MODULE = r".+\.TIM\."


def _our_arguments(file: str, args: ConstructorArguments, step: int) -> dict[str, Any]:
    settings = args["neuron"]
    attention = {
        "scale": args["attn_scale"],
        "alpha": args["tim_alpha"],
        "attn_threshold": settings.get("attn_lif_threshold", 0.5),
        "in_threshold": float(np.float32(settings.get("tim_in_lif_threshold", 1.0))),
        "out_threshold": float(np.float32(settings.get("tim_out_lif_threshold", 1.0))),
        "tim_node": NODE.replace(tau=settings.get("tim_lif_tau", 2.0)),
    }
    node = lif_of(args).replace(surrogate=NODE.args["surrogate"])
    return {**shared_arguments(args), "img_size": args["event_size"], "attention": Spec("tim", attention), "node": node}


def _variants(args: Mapping[str, Any], weights: Weights) -> list[Variant]:
    # the model's node may serve as tim_node if it differs in the threshold alone: each of the two sets its own
    mixer, node = args["attention"], args["node"]
    shared = isinstance(mixer, Spec) and mixer.args.get("tim_node") is None and node.args.get("tau") == 2.0
    attention = {
        "attn_threshold": weights.constant(ATTN_THRESHOLD, 0.5),
        "in_threshold": weights.constant(MODULE + r"in_lif\.threshold", 1.0),
        "out_threshold": weights.constant(MODULE + r"out_lif\.threshold", 1.0),
        "tim_node": None if shared else NODE,
    }
    return [Variant({"attention": Spec("tim", attention), "node": with_threshold_of(NODE, weights)}, FREE)]


PUBLISHED = Published(
    repositories=("Fancyssc/SpikingTransformerBenchmark:cls/models/dvs/tim.py",),
    rules=(
        *PATCH_RULES,
        (r"block\.(\d+)\.attn\.TIM\.interactor\.(.+)", r"blocks.\1.attention.branch.interactor.\2"),
        (r"block\.(\d+)\.attn\.(q|k|v|proj)_(\w+)\.(.+)", r"blocks.\1.attention.branch.\2.\3.\4"),
        (r"block\.(\d+)\.mlp\.(fc\d)_(\w+)\.(.+)", r"blocks.\1.mlp.branch.\2.\3.\4"),
        (r"(head\..+)", r"\1"),
    ),
    unused=(*CONSTANTS, r"block\.\d+\.norm[12]\.\w+"),
    spec=_our_arguments,
    variants=_variants,
    defaults=lambda place, name: TIM_DEFAULTS,
)
