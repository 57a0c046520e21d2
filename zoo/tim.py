"""TIM: Spikformer for events whose queries remember the steps before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from registry import Spec, register
from st_utils.backbone.transformer import SpikingTransformer
from st_utils.layer import init_trunc_normal
from zoo.authors_form import Form, Weights
from zoo.constructor import Constructor
from zoo.published import Published
from zoo.step_benchmark import ATTN_THRESHOLD, CONSTANTS, DEFAULTS, PATCH_RULES, SCALE, arguments, neuron, node_of

# BrainCog's LIF, whose surrogate is its default whatever is asked; TIM's two neurons take nothing from the model.
NODE = Spec("lif", {"surrogate": Spec("qgate", {"strict": True})})
TIM_DEFAULTS = {**DEFAULTS, "step": 10, "in_channels": 2, "embed_dim": 256, "num_heads": 16, "attn_scale": 0.25}
TIM_DEFAULTS |= {"event_size": 64, "tim_alpha": 0.5}
FREE = {**SCALE, "attention.alpha": "tim_alpha of the constructor: the weights do not tell"}
MODULE = r".+\.TIM\."


def _authors_arguments(file: str, args: Constructor, step: int) -> dict[str, Any]:
    settings = args["neuron"]
    attention = {
        "scale": args["attn_scale"],
        "alpha": args["tim_alpha"],
        "attn_threshold": settings.get("attn_lif_threshold", 0.5),
        "in_threshold": float(np.float32(settings.get("tim_in_lif_threshold", 1.0))),
        "out_threshold": float(np.float32(settings.get("tim_out_lif_threshold", 1.0))),
        "tim_node": NODE.replace(tau=settings.get("tim_lif_tau", 2.0)),
    }
    node = neuron(args).replace(surrogate=NODE.args["surrogate"])
    return {**arguments(args), "img_size": args["event_size"], "attention": Spec("tim", attention), "node": node}


def _authors_forms(args: Mapping[str, Any], weights: Weights) -> list[Form]:
    # the model's own neuron serves where it is theirs but for the threshold, which each of the two has for itself
    mixer, node = args["attention"], args["node"]
    shared = isinstance(mixer, Spec) and mixer.args.get("tim_node") is None and node.args.get("tau") == 2.0
    attention = {
        "attn_threshold": weights.constant(ATTN_THRESHOLD, 0.5),
        "in_threshold": weights.constant(MODULE + r"in_lif\.threshold", 1.0),
        "out_threshold": weights.constant(MODULE + r"out_lif\.threshold", 1.0),
        "tim_node": None if shared else NODE,
    }
    return [Form({"attention": Spec("tim", attention), "node": node_of(NODE, weights)}, FREE)]


@register.model(
    "tim", source="Shen et al. 2024, arXiv:2401.11687; Fancyssc/SpikingTransformerBenchmark, BrainCog's examples/TIM"
)
class TIM(
    SpikingTransformer,
    img_size=64,
    step=10,
    embed_dim=256,
    depth=2,
    num_heads=16,
    embedding='sps(pooling="1111")',
    attention="tim",
    node="lif(surrogate=qgate(strict=true))",
):
    """Spikformer with queries that remember (CIFAR10-DVS: `tim(in_channels=2)`, 2,568,746 parameters).

    Differs from the authors' code in the thresholds of the module's two neurons (at theirs, 1, the queries of all
    steps but the first are silent: `tim(in_threshold=1.0, out_threshold=1.0)`), in any event size, token grid and
    number of steps (their blocks are for 64 pixels and 4 x 4 tokens whatever they are told), and in leaving out
    LayerNorms and a neuron that theirs never calls.
    """

    published = Published(
        repositories=("Fancyssc/SpikingTransformerBenchmark:cls/models/dvs/tim.py",),
        rules=(
            *PATCH_RULES,
            (r"block\.(\d+)\.attn\.TIM\.interactor\.(.+)", r"blocks.\1.attention.branch.interactor.\2"),
            (r"block\.(\d+)\.attn\.(q|k|v|proj)_(\w+)\.(.+)", r"blocks.\1.attention.branch.\2.\3.\4"),
            (r"block\.(\d+)\.mlp\.(fc\d)_(\w+)\.(.+)", r"blocks.\1.mlp.branch.\2.\3.\4"),
            (r"(head\..+)", r"\1"),
        ),
        unused=(*CONSTANTS, r"block\.\d+\.norm[12]\.\w+"),
        spec=_authors_arguments,
        forms=_authors_forms,
        defaults=lambda place, name: TIM_DEFAULTS,
    )

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        init_trunc_normal(self, kernels=(), linear=True)
