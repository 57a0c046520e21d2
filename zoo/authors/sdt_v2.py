"""Names, arguments and variants of Spike-Driven Transformer V2 (BICLab/Spike-Driven-Transformer-V2)."""

from __future__ import annotations

from typing import Any

from registry import Spec
from zoo.authors.constructor import NEEDED, SPIKFORMER, ConstructorArguments
from zoo.authors.published import Published, Rules, inside, square
from zoo.authors.variants import Variant

# The authors' stages and blocks -> ours. V3's code uses the same names.
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
# Names inside them that V2 and V3 share. k: conv or bn, p: the parameter.
STAGE_RULES = ((r"encode_(?P<k>conv|bn)\.(?P<p>\w+)", r"\g<k>.\g<p>"),)
CONV_RULES = ((r"(?P<k>conv|bn)(?P<i>[12])\.(?P<p>\w+)", r"mlp.branch.fc\g<i>.\g<k>.\g<p>"),)
BLOCK_RULES = (
    (r"attn\.(?P<x>q|k|v|proj)_conv\.1\.(?P<p>\w+)", r"attention.branch.\g<x>.norm.\g<p>"),
    (r"mlp\.(?P<x>fc[12])_(?P<k>conv|bn)\.(?P<p>\w+)", r"mlp.branch.\g<x>.\g<k>.\g<p>"),
)
REPCONV = r"attn\.(?P<x>q|k|v|proj)_conv\.0"


def conv_then_norm(theirs: str, ours: str) -> Rules:
    """Rules for a sequence of a convolution (item 0) and a norm (item 1) in the authors' code."""
    return (theirs + r"\.0\.(?P<p>\w+)", ours + r".conv.\g<p>"), (theirs + r"\.1\.(?P<p>\w+)", ours + r".norm.\g<p>")


# Their `depths` sets a drop-path schedule that is never applied: the blocks are always 6 and 2. T is an attribute.
DEFAULTS = {**SPIKFORMER, "embed_dim": NEEDED, "depths": 8, "kd": False, "T": None}
FIXED = {"attention": Spec("sdsa3", {"legacy_training": True})}


def _our_arguments(file: str, args: ConstructorArguments, step: int) -> dict[str, Any]:
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


PUBLISHED = Published(
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
    spec=_our_arguments,
    variants=lambda args, weights: [Variant(FIXED, {"distill": "the weights' names tell"})],
    defaults=lambda place, name: DEFAULTS,
)
