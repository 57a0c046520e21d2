"""Spike-driven Transformer V3, or E-SpikeFormer: V2 with integer firing, in a Base and a Large form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry import Spec, register
from st_utils.backbone.metaformer import SpikingMetaformer
from st_utils.errors import UserError
from zoo.authors_form import Form, Weights
from zoo.constructor import IGNORED, NEEDED, SPIKFORMER, Constructor
from zoo.published import Published, inside, square
from zoo.sdt_v2 import (
    BLOCK_RULES,
    BLOCKS,
    CONV_BLOCKS,
    CONV_RULES,
    REPCONV,
    STAGE_RULES,
    STAGES,
    conv_then_norm,
)

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


def _authors_arguments(file: str, args: Constructor, step: int) -> dict[str, Any]:
    """Model_Base has no time and always 6 and 2 blocks; Model_Large has a step and `depths` blocks in one stage."""
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


def _large_classes(args: Constructor) -> int:
    """`nb_classes` are the head's, `num_classes` those of the distillation head. Raises UserError where they differ."""
    if args["kd"] and args["nb_classes"] != args["num_classes"]:
        raise UserError(
            f"nb_classes={args['nb_classes']} (the authors' default is 1000) and num_classes={args['num_classes']} are "
            "the classes of their two heads, whose mean fails: give both the same, or kd=False"
        )
    return args["nb_classes"]


def _authors_forms(args: Mapping[str, Any], weights: Weights) -> list[Form]:
    scaled = "layer_scale"
    large = [Form(fixed, LARGE_FREE, has=scaled) for fixed in (LARGE, LARGE | REPCONV_BLOCKS)]
    return [Form(lacks=scaled), *large]


@register.model(
    "sdt_v3",
    aliases=("e_spikeformer", "efficient_spiking_transformer"),
    source="Yao et al. 2025, arXiv:2411.16061; BICLab/Spike-Driven-Transformer-V3",
)
class SDTv3(
    SpikingMetaformer,
    step=1,
    embed_dim=(64, 128, 256, 360),
    embedding="meta_stem(attention=sepconv(spiking_project=true))",
    attention="esdsa",
    node="ilif",
    local_attention="sepconv(kernel=3, spiking_project=true)",
):
    """E-SpikeFormer (the default is Base l for ImageNet: 18,987,504 parameters at 1,000 classes).

    Its neurons `ilif` fire integers that stand for the spikes of 4 steps, so an image takes one step. A block has a
    separable convolution, then the attention, then the MLP. The Base sizes t, s and m are
    `embed_dim=[24, 48, 96, 128]`, `[32, 64, 128, 192]` and `[48, 96, 192, 240]`. The Large form, 12 blocks in one
    stage, is `sdt_v3(embed_dim=[196, 384, 768], depth=12, embedding=meta_stem(attention=none, mlp=mlp(kernel=3)),
    attention=sdsa3(kernel=1, expansion=1.5), local_attention=none, layer_scale=1e-6,
    node=ilif(rounding=half_up, strict_window=true))`; the smaller one has embed_dim=[128, 256, 512] and
    local_attention=repconv(kernel=1), which the authors' forward fails to run (a NameError).

    Differs from the authors' code in applying `drop_path` when it is above 0 in the Base form too (theirs never
    does).

    Args:
        embed_dim: the width of each stage, two of the stem's, then the transformer's; or D for (D / 4, D / 2, D,
            5 D / 4).
        depth: transformer blocks, 3 : 1 in the last two stages (8 is the published 6 and 2), or those of each.
        embedding: what gives `[T, B, D, H, W]` of the third width.
        local_attention: the token mixer before the attention; none leaves it out.
        layer_scale: where a learned factor a channel on each branch starts; none has no such factor.
        distill: a second head for distillation: training gives `[2, B, num_classes]`, evaluation the mean.
        head_init: of the heads' weights; Base has trunc_normal, Large xavier.
        legacy_real_head: the Large form's class head sees the real-valued features and its distillation head
            the spikes; here both see spikes unless this is set.
    """

    published = Published(
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
        spec=_authors_arguments,
        forms=_authors_forms,
        defaults=lambda place, name: LARGE_DEFAULTS if "model_large" in place else DEFAULTS,
    )
