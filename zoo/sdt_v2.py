"""Spike-driven Transformer V2, or Meta-SpikeFormer."""

from __future__ import annotations

from typing import Any

from registry import Spec, register
from st_utils.backbone.metaformer import SpikingMetaformer
from zoo.authors_form import Form
from zoo.constructor import NEEDED, SPIKFORMER, Constructor
from zoo.published import Published, Rules, inside, square

# Where the authors' stages and blocks stand here; V3's code has the same names.
STAGES = {
    r"downsample1_1": "embedding.0",
    r"downsample1_2": "embedding.2",
    r"downsample2": "embedding.4",
    r"downsample3": "embedding.6",
    r"downsample4": "blocks.1",
}
CONV_BLOCKS = {
    r"ConvBlock1_1\.0": "embedding.1.0",
    r"ConvBlock1_2\.0": "embedding.3.0",
    r"ConvBlock2_1\.0": "embedding.5.0",
    r"ConvBlock2_2\.0": "embedding.5.1",
}
BLOCKS = {r"block3\.(?P<n>\d+)": r"blocks.0.\g<n>", r"block4\.(?P<n>\d+)": r"blocks.2.\g<n>"}

# What V2 and V3 name alike inside them. k: conv or bn, p: the parameter.
STAGE_RULES = ((r"encode_(?P<k>conv|bn)\.(?P<p>\w+)", r"\g<k>.\g<p>"),)
CONV_RULES = ((r"(?P<k>conv|bn)(?P<i>[12])\.(?P<p>\w+)", r"mlp.branch.fc\g<i>.\g<k>.\g<p>"),)
BLOCK_RULES = (
    (r"attn\.(?P<x>q|k|v|proj)_conv\.1\.(?P<p>\w+)", r"attention.branch.\g<x>.norm.\g<p>"),
    (r"mlp\.(?P<x>fc[12])_(?P<k>conv|bn)\.(?P<p>\w+)", r"mlp.branch.\g<x>.\g<k>.\g<p>"),
)
REPCONV = r"attn\.(?P<x>q|k|v|proj)_conv\.0"


def conv_then_norm(theirs: str, ours: str) -> Rules:
    """Rules for a convolution and a norm that the authors have as items 0 and 1 of a sequence."""
    return (theirs + r"\.0\.(?P<p>\w+)", ours + r".conv.\g<p>"), (theirs + r"\.1\.(?P<p>\w+)", ours + r".norm.\g<p>")


# Their `depths` sizes a schedule that is never applied: the blocks are always 6 and 2. T is an attribute of the model.
DEFAULTS = {**SPIKFORMER, "embed_dim": NEEDED, "depths": 8, "kd": False, "T": None}
FIXED = {"attention": Spec("sdsa3", {"legacy_training": True})}


def _authors_arguments(file: str, args: Constructor, step: int) -> dict[str, Any]:
    return {
        "num_classes": args["num_classes"],
        "in_channels": args["in_channels"],
        "img_size": square(args["img_size_h"], args["img_size_w"]),
        "step": args["T"] or step,
        "embed_dim": tuple(args["embed_dim"]),
        "depth": (6, 2),
        "num_heads": args["num_heads"],
        "mlp_ratio": args["mlp_ratios"],
        "distill": args["kd"],
        **FIXED,
    }


@register.model(
    "sdt_v2",
    aliases=("meta_spikeformer", "metaspikformer"),
    source="Yao et al. 2024, arXiv:2404.03663; BICLab/Spike-Driven-Transformer-V2",
)
class SDTv2(SpikingMetaformer):
    """Meta-SpikeFormer (the default is 8-512 for ImageNet: 55,350,248 parameters at 1,000 classes).

    A stem of convolution blocks, then transformer blocks of `sdsa3` in two stages. `embed_dim=384` and
    `embed_dim=768` are the other published sizes. Differs from the authors' code in applying `drop_path` when it is
    above 0 (theirs takes it and never applies it), and in the training of `sdsa3`'s projections (its
    `legacy_training`).

    Args:
        embed_dim: D for stages of (D / 4, D / 2, D, 5 D / 4) channels, or the four.
        depth: transformer blocks, 3 : 1 in the last two stages (8 is the published 6 and 2), or the two.
        embedding: what gives `[T, B, D, H, W]` of the third stage's width.
        distill: a second head for distillation: training gives `[2, B, num_classes]`, evaluation the mean.
    """

    published = Published(
        repositories=("BICLab/Spike-Driven-Transformer-V2",),
        rules=(
            *inside(STAGES, STAGE_RULES),
            *inside(
                CONV_BLOCKS,
                (
                    (r"Conv\.pwconv1\.(?P<p>\w+)", r"attention.branch.expand.conv.\g<p>"),
                    (r"Conv\.bn1\.(?P<p>\w+)", r"attention.branch.expand.norm.\g<p>"),
                    (r"Conv\.dwconv\.(?P<p>\w+)", r"attention.branch.depthwise.\g<p>"),
                    (r"Conv\.pwconv2\.(?P<p>\w+)", r"attention.branch.project.conv.\g<p>"),
                    (r"Conv\.bn2\.(?P<p>\w+)", r"attention.branch.project.norm.\g<p>"),
                    *CONV_RULES,
                ),
            ),
            *inside(
                BLOCKS,
                (
                    (REPCONV + r"\.body\.0\.(?P<p>\w+)", r"attention.branch.\g<x>.expand.conv.\g<p>"),
                    (REPCONV + r"\.body\.1\.bn\.(?P<p>\w+)", r"attention.branch.\g<x>.expand.norm.\g<p>"),
                    (REPCONV + r"\.body\.2\.0\.(?P<p>\w+)", r"attention.branch.\g<x>.depthwise.\g<p>"),
                    (REPCONV + r"\.body\.2\.1\.(?P<p>\w+)", r"attention.branch.\g<x>.project.conv.\g<p>"),
                    (REPCONV + r"\.body\.2\.2\.(?P<p>\w+)", r"attention.branch.\g<x>.project.norm.\g<p>"),
                    *BLOCK_RULES,
                ),
            ),
            (r"(head(?:_kd)?\..+)", r"\1"),
        ),
        unused=(),
        spec=_authors_arguments,
        forms=lambda args, weights: [Form(FIXED, {"distill": "the weights' names tell"})],
        defaults=lambda place, name: DEFAULTS,
    )
