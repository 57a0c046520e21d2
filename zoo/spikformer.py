"""Spikformer: the first transformer of spiking self-attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry import Spec, register
from st_utils.layer import init_trunc_normal
from st_utils.transformer import SpikingTransformer
from zoo.published import Published, square


def _authors_arguments(file: str, args: Mapping[str, Any], step: int) -> dict[str, Any]:
    """The authors have one model file a data set: cifar10/, cifar10dvs/, imagenet/."""
    data = file.split("/")[0]
    forms = {
        "cifar10": {},
        "cifar10dvs": {
            "embedding": Spec("sps", {"pooling": "1111"}),
            "attention": Spec("ssa", {"qkv_bias": False, "scale": 0.25}),
        },
        "imagenet": {
            "embedding": Spec("sps", {"pooling": "1111"}),
            "attention": Spec("ssa", {"qkv_bias": False}),
        },
    }
    return {
        "num_classes": args["num_classes"],
        "in_channels": args["in_channels"],
        "img_size": square(args["img_size_h"], args["img_size_w"]),
        "step": args.get("T", step),
        "embed_dim": args["embed_dims"],
        "depth": args["depths"],
        "num_heads": args["num_heads"],
        "mlp_ratio": args["mlp_ratios"],
        **forms[data],
    }


@register.model("spikformer", source="Zhou et al. 2023, arXiv:2209.15425; ZK-Zhou/spikformer")
class Spikformer(SpikingTransformer):
    """Spikformer (the default is Spikformer-4-384 for CIFAR, 9,324,730 parameters at 10 classes).

    Spikes are added after each branch's neuron, so integers run along the shortcuts into the next layer; no
    neuron before the head. Differs from the authors' code in applying `drop_path` when it is above 0 (theirs
    takes it and never applies it) and in leaving out the LayerNorms that theirs never calls.
    """

    published = Published(
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
        spec=_authors_arguments,
    )

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        init_trunc_normal(self, kernels=(1,), linear=True)
