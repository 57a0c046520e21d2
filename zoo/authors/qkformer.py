"""Names, arguments and variants of QKFormer (zhouchenlin2096/QKFormer)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry import Spec
from zoo.authors.constructor import SPIKFORMER, ConstructorArguments, choose
from zoo.authors.published import Published, inside, square
from zoo.authors.variants import Variant, Weights

# Five model files hold three classes. Two of these fix the number of heads, one the depth.
FORMS = {
    "cifar": {"num_heads": 8, "legacy_batch_leak": True},
    "events": {"num_heads": 16, "embedding": Spec("speds", {"stride": 8}), "legacy_batch_leak": True},
    "imagenet": {"early_pooling": True, "embedding": Spec("speds", {"stride": 4}), "legacy_batch_leak": True},
}
FILES = {
    "cifar10/model.py": "cifar",
    "cifar100/model.py": "cifar",
    "cifar10-dvs/model.py": "events",
    "dvs128-gesture/model.py": "events",
    "imagenet/qkformer.py": "imagenet",
}


def _our_arguments(file: str, args: ConstructorArguments, step: int) -> dict[str, Any]:
    name = choose(FILES, file, "file of QKFormer")
    shared = {
        "num_classes": args["num_classes"],
        "in_channels": args["in_channels"],
        "img_size": square(args["img_size_h"], args["img_size_w"]),
        "embed_dim": args["embed_dims"],
        "mlp_ratio": args["mlp_ratios"],
    }
    if name == "events":
        return shared | {"depth": (1, 1), "step": step} | FORMS[name]
    if name == "imagenet":
        shared |= {"depth": (1, 2, args["depths"] - 3), "num_heads": args["num_heads"]}
    else:
        shared |= {"depth": (1, 1, args["depths"] - 2)}
    return shared | {"step": args["T"]} | FORMS[name]


def _variants(args: Mapping[str, Any], weights: Weights) -> list[Variant]:
    """Tell the classes apart by names: only ImageNet's MLP has an fc1, only the class for events has no stage3."""
    return [
        Variant(FORMS["cifar"], has=r"^stage3\.", lacks=r"\.fc1_conv\."),
        Variant(FORMS["events"], lacks=r"^stage3\."),
        Variant(FORMS["imagenet"], has=r"\.fc1_conv\."),
    ]


PUBLISHED = Published(
    repositories=("zhouchenlin2096/QKFormer",),
    rules=(
        *inside(
            {"patch_embed1": "embedding", "patch_embed2": "blocks.1", "patch_embed3": "blocks.3"},
            (
                (r"proj_res_(conv|bn)\.(\w+)", r"shortcut.\1.\2"),
                (r"proj_(conv|bn)\.(\w+)", r"layers.0.\1.\2"),
                (r"proj4_(conv|bn)\.(\w+)", r"layers.1.\1.\2"),
            ),
        ),
        (r"patch_embed1\.proj([123])_(conv|bn)\.(\w+)", r"embedding.layers.\1.\2.\3"),
        (r"patch_embed2\.proj3_(conv|bn)\.(\w+)", r"blocks.1.layers.0.\1.\2"),
        (r"patch_embed3\.proj3_(conv|bn)\.(\w+)", r"blocks.3.layers.0.\1.\2"),
        *inside(
            {r"stage1\.(\d+)": r"blocks.0.\1", r"stage2\.(\d+)": r"blocks.2.\1", r"stage3\.(\d+)": r"blocks.4.\1"},
            (
                (r"(?:tssa|ssa|attn)\.(q|k|v|proj)_(conv|bn)\.(\w+)", r"attention.branch.\2.\3.\4"),
                (r"mlp\.(?:mlp|fc)([12])_(conv|bn)\.(\w+)", r"mlp.branch.fc\2.\3.\4"),
            ),
        ),
        (r"(head\..+)", r"\1"),
    ),
    unused=(),
    spec=_our_arguments,
    variants=_variants,
    defaults=lambda place, name: SPIKFORMER | {"in_chans": 3, "no_weight_decay": None},
)
