"""Names, arguments and variants of Spikformer (ZK-Zhou/spikformer)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry import Spec
from zoo.authors.constructor import SPIKFORMER, ConstructorArguments, choose
from zoo.authors.published import Published, square
from zoo.authors.variants import Variant, Weights

# The authors have one model file per data set. The ImageNet class always has 4 steps.
FORMS = {
    "cifar10": {},
    "cifar10dvs": {
        "embedding": Spec("sps", {"pooling": "1111"}),
        "attention": Spec("ssa", {"qkv_bias": False, "scale": 0.25}),
        "projection_init": "default",
    },
    "imagenet": {
        "embedding": Spec("sps", {"pooling": "1111"}),
        "attention": Spec("ssa", {"qkv_bias": False}),
        "projection_init": "default",
        "step": 4,
    },
}


def _our_arguments(file: str, args: ConstructorArguments, step: int) -> dict[str, Any]:
    """The steps are the input's for events and T for images."""
    form = choose({f"{data}/model.py": form for data, form in FORMS.items()}, file, "file of Spikformer")
    return {
        "num_classes": args["num_classes"],
        "in_channels": args["in_channels"],
        "img_size": square(args["img_size_h"], args["img_size_w"]),
        "step": step if file.startswith("cifar10dvs") else args["T"],
        "embed_dim": args["embed_dims"],
        "depth": args["depths"],
        "num_heads": args["num_heads"],
        "mlp_ratio": args["mlp_ratios"],
        **form,
    }


def _variants(args: Mapping[str, Any], weights: Weights) -> list[Variant]:
    """Tell the classes apart by names: only CIFAR's has linear layers, only events' has a `pos_embed` (unused)."""
    linear = r"\.q_linear\."
    # some checkpoints lack the unused `pos_embed`: then two input channels tell events
    events = "" if args["in_channels"] == 2 else "pos_embed"
    return [
        Variant(FORMS["cifar10"], has=linear),
        Variant(FORMS["cifar10dvs"], has=events, lacks=linear),
        Variant(FORMS["imagenet"], lacks=rf"pos_embed|{linear}"),
    ]


PUBLISHED = Published(
    repositories=("ZK-Zhou/spikformer",),
    rules=(
        (r"patch_embed\.proj_(conv|bn)\.(.+)", r"embedding.stages.0.\1.\2"),
        (r"patch_embed\.proj_(conv|bn)(\d)\.(.+)", r"embedding.stages.\2.\1.\3"),
        (r"patch_embed\.rpe_(conv|bn)\.(.+)", r"embedding.position.\1.\2"),
        (r"block\.(\d+)\.attn\.(q|k|v|proj)_(\w+)\.(.+)", r"blocks.\1.attention.branch.\2.\3.\4"),
        (r"block\.(\d+)\.mlp\.(fc\d)_(\w+)\.(.+)", r"blocks.\1.mlp.branch.\2.\3.\4"),
        (r"(head\..+)", r"\1"),
    ),
    unused=(r"pos_embed", r"norm\.\w+", r"block\.\d+\.norm[12]\.\w+"),
    spec=_our_arguments,
    variants=_variants,
    defaults=lambda place, name: SPIKFORMER,
)
