"""Spikformer: the first transformer of spiking self-attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from registry import Spec, register
from st_utils.backbone.transformer import SpikingTransformer
from st_utils.layer import init_trunc_normal
from zoo.authors_form import Form, Weights
from zoo.constructor import SPIKFORMER, Constructor, choose
from zoo.published import Published, square

# The authors have one model file per data set. Its ImageNet class has 4 steps fixed.
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


def _authors_arguments(file: str, args: Constructor, step: int) -> dict[str, Any]:
    """Events give the steps, images do not."""
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


def _authors_forms(args: Mapping[str, Any], weights: Weights) -> list[Form]:
    """Only the class for CIFAR has linear layers; only that for events a `pos_embed`, which it never uses."""
    linear = r"\.q_linear\."
    # a checkpoint may have been freed of what is never used: two channels tell as well
    events = "" if args["in_channels"] == 2 else "pos_embed"
    return [
        Form(FORMS["cifar10"], has=linear),
        Form(FORMS["cifar10dvs"], has=events, lacks=linear),
        Form(FORMS["imagenet"], lacks=rf"pos_embed|{linear}"),
    ]


@register.model("spikformer", source="Zhou et al. 2023, arXiv:2209.15425; ZK-Zhou/spikformer")
class Spikformer(SpikingTransformer):
    """Spikformer (the default is Spikformer-4-384 for CIFAR, 9,324,730 parameters at 10 classes).

    Spikes are added after each branch's neuron, so integers run along the shortcuts into the next layer; no
    neuron before the head. Differs from the authors' code in applying `drop_path` when it is above 0 (theirs
    takes it and never applies it) and in leaving out the LayerNorms that theirs never calls.

    Args:
        projection_init: initial weights of the projections and MLPs. The authors' `_init_weights` gives linear layers
            a truncated normal of 0.02: that is all of these for CIFAR, and none for events and ImageNet, where they
            are convolutions and keep PyTorch's default. The head is always linear.
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
        forms=_authors_forms,
        defaults=lambda place, name: SPIKFORMER,
    )

    def __init__(self, projection_init: Literal["trunc_normal", "default"] = "trunc_normal", **settings: Any):
        super().__init__(**settings)
        init_trunc_normal(self, kernels=(1,) if projection_init == "trunc_normal" else (), linear=True)
