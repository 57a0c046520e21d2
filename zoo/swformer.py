"""Spiking Wavelet Transformer: a Haar transform in place of attention."""

from __future__ import annotations

from typing import Any

from registry import Spec, register
from st_utils.backbone.transformer import SpikingTransformer
from st_utils.layer import init_trunc_normal
from zoo.authors_form import Form
from zoo.constructor import Constructor
from zoo.published import Published
from zoo.step_benchmark import CONSTANTS, DEFAULTS, FOLDER, LIF, PATCH_RULES, TAU, arguments, node_of

FATM = r"blocks.\1.attention.branch"


FREE = {**TAU, "attention.blocks": "the weights' shapes tell"}


def _authors_arguments(file: str, args: Constructor, step: int) -> dict[str, Any]:
    return {**arguments(args), "attention": Spec("fatm", {"blocks": args["FL_blocks"]})}


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
        forms=lambda args, weights: [Form({"node": node_of(LIF, weights)}, FREE)],
        defaults=lambda place, name: {**DEFAULTS, "FL_blocks": 16},
    )

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        init_trunc_normal(self, kernels=(), linear=True)
