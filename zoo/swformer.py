"""Spiking Wavelet Transformer: a Haar transform in place of attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry import Spec, register
from st_utils.layer import init_trunc_normal
from st_utils.transformer import SpikingTransformer
from zoo.published import Published
from zoo.step_benchmark import CONSTANTS, FOLDER, PATCH_RULES, arguments

FATM = r"blocks.\1.attention.branch"


def _authors_arguments(file: str, args: Mapping[str, Any], step: int) -> dict[str, Any]:
    return {**arguments(args, step), "attention": Spec("fatm", {"blocks": args.get("FL_blocks", 16)})}


@register.model(
    "swformer",
    aliases=("spiking_wavelet_transformer",),
    source="Fang et al. 2024, arXiv:2403.11138; Fancyssc/SpikingTransformerBenchmark",
)
class SWFormer(SpikingTransformer, embedding="sps(spiking=false)", attention="fatm", shortcut="membrane"):
    """Spiking Wavelet Transformer (the default is SWFormer-4-384 for CIFAR, 7,022,458 parameters at 10 classes).

    The token mixer `fatm` multiplies Haar coefficients. Membrane potentials run along the shortcuts; no neuron
    stands before the head. `num_heads` is not used. At the neurons' threshold of 1, the authors' default and ours,
    the last neuron of the inverse transform is nearly silent: `swformer(node=lif(threshold=0.6))` wakes it.
    """

    published = Published(
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
        spec=_authors_arguments,
    )

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        init_trunc_normal(self, kernels=(), linear=True)
