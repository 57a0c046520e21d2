"""Spikingformer: Spikformer with every convolution behind a neuron."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry import Spec, register
from st_utils.backbone.transformer import SpikingTransformer
from st_utils.layer import init_trunc_normal
from zoo.authors_form import Form, Weights
from zoo.constructor import SPIKFORMER, Constructor, choose
from zoo.published import Published, square
from zoo.step_benchmark import ATTN_THRESHOLD, CONSTANTS, DEFAULTS, FOLDER, LIF, PATCH_RULES, SCALE, arguments, node_of

# The authors' own classes, one file per data set: their projection has a bias, and events a time constant of their own.
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


def _authors_arguments(file: str, args: Constructor, step: int) -> dict[str, Any]:
    """The benchmark's class, or one of the authors'; there events give the steps."""
    if file.startswith("cls/"):
        attention = {"qkv_bias": False, "proj_bias": False, "scale": args["attn_scale"]}
        return {**arguments(args), "attention": Spec("ssa", attention)}
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


def _authors_forms(args: Mapping[str, Any], weights: Weights) -> list[Form]:
    """The authors call an MLP's layers mlp1 and mlp2, the benchmark fc1 and fc2; only its neurons have constants.

    The names for events and ImageNet are alike: events have two channels.
    """
    threshold = weights.constant(ATTN_THRESHOLD, 0.5)
    ssa = Spec("ssa", {"qkv_bias": False, "proj_bias": False, "attn_threshold": threshold})
    benchmark = Form({"attention": ssa, "node": node_of(LIF, weights)}, SCALE, has=r"\.fc1_conv\.")
    pooled = "events" if args["in_channels"] == 2 else "imagenet"
    authors = {"cifar": r"\.block0_conv\.", pooled: r"\.proj4_conv\."}
    return [benchmark, *(Form(FORMS[name], has=pattern) for name, pattern in authors.items())]


@register.model(
    "spikingformer",
    source="Zhou et al. 2023, arXiv:2304.11954; zhouchenlin2096/Spikingformer; Fancyssc/SpikingTransformerBenchmark",
)
class Spikingformer(
    SpikingTransformer,
    embedding="sps(shortcut=false, spiking=false)",
    attention="ssa(proj_bias=false, qkv_bias=false)",
    shortcut="membrane",
):
    """Spikingformer (the default is the STEP benchmark's 4-384 for CIFAR, 9,318,586 parameters at 10 classes).

    Membrane potentials run along the shortcuts and each branch begins with its neuron, so that every convolution
    but the first sees spikes. No neuron stands before the head. The authors' own class has a bias in the output
    projection: `spikingformer(attention=ssa(qkv_bias=false))`; for ImageNet also
    `embedding=sps(pooling="1111", shortcut=false, spiking=false)`, for events that and `node=lif(tau=1.5)`.
    """

    published = Published(
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
        spec=_authors_arguments,
        forms=_authors_forms,
        defaults=lambda place, name: DEFAULTS if ":cls/" in place else SPIKFORMER,
    )

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        init_trunc_normal(self, kernels=(), linear=True)
