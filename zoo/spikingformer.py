"""Spikingformer: Spikformer with every convolution behind a neuron."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry import Spec, register
from st_utils.layer import init_trunc_normal
from st_utils.transformer import SpikingTransformer
from zoo.published import Published
from zoo.step_benchmark import CONSTANTS, FOLDER, PATCH_RULES, arguments


def _authors_arguments(file: str, args: Mapping[str, Any], step: int) -> dict[str, Any]:
    scale = {"scale": args.get("attn_scale", 0.125)}
    return {**arguments(args, step), "attention": Spec("ssa", {"qkv_bias": False, "proj_bias": False, **scale})}


@register.model(
    "spikingformer",
    source="Zhou et al. 2023, arXiv:2304.11954; Fancyssc/SpikingTransformerBenchmark",
)
class Spikingformer(
    SpikingTransformer,
    embedding="sps(shortcut=false, spiking=false)",
    attention="ssa(proj_bias=false, qkv_bias=false)",
    shortcut="membrane",
):
    """Spikingformer (the default is Spikingformer-4-384 for CIFAR, 9,318,586 parameters at 10 classes).

    Membrane potentials run along the shortcuts and each branch begins with its neuron, so that every convolution
    but the first sees spikes. No neuron stands before the head.
    """

    published = Published(
        repositories=(FOLDER + "spikingformer_cifar.py",),
        rules=(
            *PATCH_RULES,
            (r"block\.(\d+)\.attn\.(q|k|v|proj)_(\w+)\.(.+)", r"blocks.\1.attention.branch.\2.\3.\4"),
            (r"block\.(\d+)\.mlp\.(fc\d)_(\w+)\.(.+)", r"blocks.\1.mlp.branch.\2.\3.\4"),
            (r"(head\..+)", r"\1"),
        ),
        unused=CONSTANTS,
        spec=_authors_arguments,
    )

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        init_trunc_normal(self, kernels=(), linear=True)
