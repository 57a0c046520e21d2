"""Names, arguments and variants of Spikingformer (zhouchenlin2096/Spikingformer, and the STEP benchmark's)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry import Spec
from zoo.authors.constructor import SPIKFORMER, ConstructorArguments, choose
from zoo.authors.published import Published, square
from zoo.authors.step_benchmark import (
    ATTN_THRESHOLD,
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

# The authors' own classes, one file per data set. The projection has a bias; for events tau is 1.5.
SSA = Spec("ssa", {"qkv_bias": False, "proj_bias": True})
POOLED = Spec("sps", {"pooling": "1111", "shortcut": False, "spiking": False})
FORMS = {
    "cifar": {"attention": SSA},
    "events": {"attention": SSA, "embedding": POOLED, "node": Spec("lif", {"tau": 1.5})},
    "imagenet": {"attention": SSA, "embedding": POOLED},
}
FILES = {
    "cifar10/model.py": "cifar",
    "cifar100/model.py": "cifar",
    "cifar10-dvs/model.py": "events",
    "dvs128-gesture/model.py": "events",
    "imagenet/model.py": "imagenet",
}


def _our_arguments(file: str, args: ConstructorArguments, step: int) -> dict[str, Any]:
    """Arguments of the benchmark's class or of the authors' own, whose steps are the input's for events."""
    if file.startswith("cls/"):
        attention = {"qkv_bias": False, "proj_bias": False, "scale": args["attn_scale"]}
        return {**shared_arguments(args), "attention": Spec("ssa", attention)}
    name = choose(FILES, file, "file of Spikingformer")
    return {
        "num_classes": args["num_classes"],
        "in_channels": args["in_channels"],
        "img_size": square(args["img_size_h"], args["img_size_w"]),
        "step": step if name == "events" else args["T"],
        "embed_dim": args["embed_dims"],
        "depth": args["depths"],
        "num_heads": args["num_heads"],
        "mlp_ratio": args["mlp_ratios"],
        **FORMS[name],
    }


def _variants(args: Mapping[str, Any], weights: Weights) -> list[Variant]:
    """Tell the classes apart: the benchmark's MLPs have fc1 and fc2, the authors' mlp1 and mlp2.

    The names for events and ImageNet are alike: events have two channels.
    """
    threshold = weights.constant(ATTN_THRESHOLD, 0.5)
    ssa = Spec("ssa", {"qkv_bias": False, "proj_bias": False, "attn_threshold": threshold})
    benchmark = Variant({"attention": ssa, "node": with_threshold_of(LIF, weights)}, SCALE, has=r"\.fc1_conv\.")
    pooled = "events" if args["in_channels"] == 2 else "imagenet"
    authors = {"cifar": r"\.block0_conv\.", pooled: r"\.proj4_conv\."}
    return [benchmark, *(Variant(FORMS[name], has=pattern) for name, pattern in authors.items())]


PUBLISHED = Published(
    repositories=("zhouchenlin2096/Spikingformer", FOLDER + "spikingformer_cifar.py"),
    rules=(
        *PATCH_RULES,
        (r"patch_embed\.proj4_(conv|bn)\.(.+)", r"embedding.position.\1.\2"),
        (r"patch_embed\.block4_(conv|bn)\.(.+)", r"embedding.position.\1.\2"),
        (r"patch_embed\.(?:proj|block)(\d)_(conv|bn)\.(.+)", r"embedding.stages.\1.\2.\3"),
        (r"block\.(\d+)\.attn\.(q|k|v|proj)_(\w+)\.(.+)", r"blocks.\1.attention.branch.\2.\3.\4"),
        (r"block\.(\d+)\.mlp\.(?:fc|mlp)(\d)_(\w+)\.(.+)", r"blocks.\1.mlp.branch.fc\2.\3.\4"),
        (r"(head\..+)", r"\1"),
    ),
    unused=(*CONSTANTS, r"block\.\d+\.norm[12]\.\w+"),
    spec=_our_arguments,
    variants=_variants,
    defaults=lambda place, name: DEFAULTS if ":cls/" in place else SPIKFORMER,
)
