"""Names, arguments and variants of Spike-Driven Transformer V3 (BICLab/Spike-Driven-Transformer-V3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry import Spec
from st_utils.errors import UserError
from zoo.authors.constructor import IGNORED, NEEDED, SPIKFORMER, ConstructorArguments
from zoo.authors.published import Published, inside, square
from zoo.authors.sdt_v2 import (
    BLOCK_RULES,
    BLOCKS,
    CONV_BLOCKS,
    CONV_RULES,
    REPCONV,
    STAGE_RULES,
    STAGES,
    conv_then_norm,
)
from zoo.authors.variants import Variant, Weights

SEPCONV = {"pwconv1": "expand", "dwconv": "depthwise", "pwconv2": "project"}


def _sepconv(theirs: str, ours: str) -> tuple[tuple[str, str], ...]:
    return sum((conv_then_norm(rf"{theirs}\.{a}", f"{ours}.branch.{b}") for a, b in SEPCONV.items()), ())


def _repconv(theirs: str, ours: str) -> tuple[tuple[str, str], ...]:
    return conv_then_norm(rf"{theirs}\.conv1", f"{ours}.expand") + conv_then_norm(
        rf"{theirs}\.conv2", f"{ours}.project"
    )


DEFAULTS = {**SPIKFORMER, "embed_dim": NEEDED, "depths": 8}
LARGE_DEFAULTS = {
    **IGNORED,
    "T": 1,
    "choice": None,
    "img_size_h": 224,
    "img_size_w": 224,
    "embed_dim": NEEDED,
    "num_heads": 8,
    "mlp_ratios": 4,
    "mlp_ratio": 4.0,
    "in_channels": 3,
    "drop_path_rate": 0.1,
    "num_classes": 1000,
    "nb_classes": 1000,
    "depths": 8,
    "sr_ratios": 1,
    "kd": True,
}
LARGE = {
    "node": Spec("ilif", {"rounding": "half_up", "strict_window": True}),
    "embedding": Spec("meta_stem", {"attention": None, "mlp": Spec("mlp", {"kernel": 3})}),
    "attention": Spec("sdsa3", {"kernel": 1, "expansion": 1.5, "legacy_training": True}),
    "local_attention": None,
    "layer_scale": 1e-6,
    "legacy_real_head": True,
}
LARGE_FREE = {
    "distill": "the weights' names tell",
    "layer_scale": "where it starts: the weights replace it",
    "attention.value_ratio": "the weights' shapes tell",
    "drop_path": "drop_path_rate of the constructor; acts in training only",
}
REPCONV_BLOCKS = {"local_attention": Spec("repconv", {"kernel": 1, "legacy_training": True})}


def _our_arguments(file: str, args: ConstructorArguments, step: int) -> dict[str, Any]:
    """Model_Base has one step and always 6 and 2 blocks; Model_Large has T steps and `depths` blocks in one stage."""
    shared = {
        "num_classes": args["num_classes"],
        "in_channels": args["in_channels"],
        "img_size": square(args["img_size_h"], args["img_size_w"]),
        "step": 1,
        "embed_dim": tuple(args["embed_dim"]),
        "depth": (6, 2),
        "num_heads": args["num_heads"],
        "mlp_ratio": args["mlp_ratios"],
    }
    if "model_large" not in file:
        if "model_base" not in file:
            raise UserError(f"the file is Model_Base/models.py or Model_Large/spikformer.py, not {file}")
        return shared
    return shared | {
        "num_classes": _large_classes(args),
        "step": args["T"],
        "depth": (args["depths"],),
        **LARGE,
        **(REPCONV_BLOCKS if args["choice"] == "base" else {}),
        "attention": LARGE["attention"].replace(value_ratio=args["sr_ratios"]),
        "drop_path": args["drop_path_rate"],
        "distill": args["kd"],
        "head_init": "xavier",
    }


def _large_classes(args: ConstructorArguments) -> int:
    """The class head has `nb_classes`, the distillation head `num_classes`. Raises UserError when they differ."""
    if args["kd"] and args["nb_classes"] != args["num_classes"]:
        raise UserError(
            f"nb_classes={args['nb_classes']} (the authors' default is 1000) and num_classes={args['num_classes']} are "
            "the classes of their two heads, whose mean fails: give both the same, or kd=False"
        )
    return args["nb_classes"]


def _variants(args: Mapping[str, Any], weights: Weights) -> list[Variant]:
    scaled = "layer_scale"
    large = [Variant(fixed, LARGE_FREE, has=scaled) for fixed in (LARGE, LARGE | REPCONV_BLOCKS)]
    return [Variant(lacks=scaled), *large]


PUBLISHED = Published(
    repositories=("BICLab/Spike-Driven-Transformer-V3",),
    rules=(
        *inside(STAGES, STAGE_RULES),
        *inside(
            CONV_BLOCKS,
            (
                *_sepconv("Conv", "attention"),
                *conv_then_norm(r"conv(?P<i>[12])\.0", r"mlp.branch.fc\g<i>"),
                *CONV_RULES,
            ),
        ),
        *inside(
            BLOCKS,
            (
                *_sepconv("conv", "local"),
                *_repconv(r"rep_conv", "local.branch"),
                (r"layer_scale1", "attention.layer_scale"),
                (r"layer_scale2", "mlp.layer_scale"),
                *_repconv(REPCONV, r"attention.branch.\g<x>"),
                (r"attn\.(?P<x>q|k|v|proj)_conv\.0\.(?P<p>\w+)", r"attention.branch.\g<x>.conv.\g<p>"),
                *BLOCK_RULES,
            ),
        ),
        (r"(head(?:_kd)?\..+)", r"\1"),
    ),
    unused=(),
    spec=_our_arguments,
    variants=_variants,
    defaults=lambda place, name: LARGE_DEFAULTS if "model_large" in place else DEFAULTS,
)
