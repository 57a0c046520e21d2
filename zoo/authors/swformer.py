"""Names, arguments and variants of the STEP benchmark's SWFormer."""

from __future__ import annotations

from typing import Any

from registry import Spec
from zoo.authors.constructor import ConstructorArguments
from zoo.authors.published import Published
from zoo.authors.step_benchmark import (
    CONSTANTS,
    DEFAULTS,
    FOLDER,
    LIF,
    PATCH_RULES,
    TAU,
    shared_arguments,
    with_threshold_of,
)
from zoo.authors.variants import Variant

FATM = r"blocks.\1.attention.branch"
FREE = {**TAU, "attention.blocks": "the weights' shapes tell"}


def _our_arguments(file: str, args: ConstructorArguments, step: int) -> dict[str, Any]:
    return {**shared_arguments(args), "attention": Spec("fatm", {"blocks": args["FL_blocks"]})}


PUBLISHED = Published(
    repositories=(FOLDER + "swformer_cifar.py",),
    rules=(
        *PATCH_RULES,
        (r"block\.(\d+)\.attn\.haar_weight", FATM + ".weight"),
        (r"block\.(\d+)\.attn\.haar_forward_bn\.(.+)", FATM + r".forward_norm.\2"),
        (r"block\.(\d+)\.attn\.haar_multiply_bn\.(.+)", FATM + r".product_norm.\2"),
        (r"block\.(\d+)\.attn\.haar_inverse_bn\.(.+)", FATM + r".inverse_norm.\2"),
        (r"block\.(\d+)\.attn\.conv1\.(.+)", FATM + r".point.\2"),
        (r"block\.(\d+)\.attn\.conv2\.(.+)", FATM + r".local.\2"),
        (r"block\.(\d+)\.attn\.conv1_bn\.(.+)", FATM + r".point_norm.\2"),
        (r"block\.(\d+)\.attn\.conv2_bn\.(.+)", FATM + r".local_norm.\2"),
        (r"block\.(\d+)\.mlp\.(fc\d)_(\w+)\.(.+)", r"blocks.\1.mlp.branch.\2.\3.\4"),
        (r"(head\..+)", r"\1"),
    ),
    unused=CONSTANTS,
    spec=_our_arguments,
    variants=lambda args, weights: [Variant({"node": with_threshold_of(LIF, weights)}, FREE)],
    defaults=lambda place, name: {**DEFAULTS, "FL_blocks": 16},
)
