"""Names, arguments and variants of Transfer-for-DVS (Brain-Cog-Lab/Transfer-for-DVS)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from registry import Spec
from st_utils.errors import UserError
from zoo.authors.constructor import ConstructorArguments
from zoo.authors.published import Published, inside
from zoo.authors.variants import Variant, Weights, learned_tau

# BrainCog's names -> ours. Its neurons set the surrogate's alpha to 2, whatever its default.
NODES = {"LIFNode": "lif", "IFNode": "if", "PLIFNode": "plif"}
SURROGATES = {
    "QGateGrad": Spec("qgate", {"alpha": 2.0, "strict": True}),
    "GateGrad": Spec("gate", {"alpha": 2.0, "strict": True}),
    "AtanGrad": Spec("atan", {"alpha": 2.0, "strict": True}),
    "SigmoidGrad": Spec("sigmoid", {"alpha": 2.0}),
    "BackEIGateGrad": Spec("rectangle", {"strict": True}),
}
CONSTANTS = (r".+\.threshold", r".+\.act_fun\.alpha")
TRANSFER_DEFAULTS = {
    "num_classes": 10,
    "step": 8,
    "node_type": "LIFNode",
    "act_fun": "AtanGrad",
    "encode_type": "direct",
    "layer_by_layer": False,
    "spike_output": False,
    "threshold": 0.5,
    "tau": 2.0,
    "inplanes": 64,
    "dataset": None,
}
FREE = {
    "node.tau": "tau of the constructor: the weights do not tell",
    "width": "the weights' shapes tell",
}


def node_of(node: str, surrogate: str, threshold: float, tau: float) -> Spec:
    """The node that BrainCog's class `node` with the surrogate is; raises UserError where none is.

    The threshold is rounded to float32, in which their code holds it.
    """
    if node not in NODES or surrogate not in SURROGATES:
        raise UserError(f"no node here is the authors' {node} with {surrogate}")
    further = {} if node == "IFNode" else {"tau": float(tau)}
    return Spec(NODES[node], {"threshold": float(np.float32(threshold)), "surrogate": SURROGATES[surrogate], **further})


def _our_arguments(file: str, args: ConstructorArguments, step: int) -> dict[str, Any]:
    """Arguments of both constructors."""
    node, surrogate = (getattr(args[name], "__name__", args[name]) for name in ("node_type", "act_fun"))
    spec = node_of(node, surrogate, args["threshold"], args["tau"])
    if args["layer_by_layer"] or args["spike_output"] or args["encode_type"] != "direct":
        raise UserError("the authors' forward runs step by step, with encode_type direct and no spike_output")
    more, channels = {"img_size": 48}, 2
    if "resnet" in file:
        more = {"stem": "conv7" if args["dataset"] == "imnet" else "conv3"}
        channels = 3 if args["dataset"] in ("cifar10", "cifar100", "imnet") else 2
    return {
        "num_classes": args["num_classes"],
        "in_channels": channels,
        "step": args["step"],
        "width": args["inplanes"],
        "node": spec,
        "transfer": True,
        "legacy_step_norm": True,
        **more,
    }


def _variants(args: Mapping[str, Any], weights: Weights) -> list[Variant]:
    """All neurons, surrogates and stems. The weights tell the threshold, PLIF (by its `w`) and the stem (by shape)."""
    threshold = weights.constant(r".+\.threshold", 0.5)
    stems = [{"stem": "conv3"}, {"stem": "conv7"}] if "stem" in args else [{}]
    found = []
    for name in NODES.values():
        for surrogate in SURROGATES.values():
            node = Spec(name, {"threshold": threshold, "surrogate": surrogate})
            fixed = {"node": node, "transfer": True, "legacy_step_norm": True}
            found += [Variant({**fixed, **stem}, FREE, **learned_tau(node)) for stem in stems]
    return found


PUBLISHED_VGG = Published(
    repositories=("Brain-Cog-Lab/Transfer-for-DVS:braincog/model_zoo/vgg_snn.py",),
    rules=(
        (r"feature\.(\d+\.(?:(?:conv|bn)\..+|node\.w))", r"layers.\1"),
        (r"rgb_fc\.1\.(.+)", r"source_head.\1"),
        (r"dvs_fc\.1\.(.+)", r"head.\1"),
        (r"(coefficient\.\d+)", r"\1"),
    ),
    unused=CONSTANTS,
    spec=_our_arguments,
    variants=_variants,
    defaults=lambda place, name: TRANSFER_DEFAULTS,
    further=True,
)


PUBLISHED_RESNET18 = Published(
    repositories=("Brain-Cog-Lab/Transfer-for-DVS:braincog/model_zoo/resnet.py",),
    rules=(
        (r"conv1\.(.+)", r"layers.stem.0.\1"),
        (r"bn1\.(.+)", r"layers.tail.0.\1"),
        *inside(
            {f"layer{i + 1}": f"layers.stage{i}" for i in range(4)},
            (
                (r"(\d+)\.bn1\.(.+)", r"\1.opening.norm.\2"),
                (r"(\d+)\.conv1\.(.+)", r"\1.first.conv.\2"),
                (r"(\d+)\.bn2\.(.+)", r"\1.first.norm.\2"),
                (r"(\d+)\.conv2\.(.+)", r"\1.second.0.\2"),
                (r"(\d+)\.node1\.w", r"\1.opening.node.w"),
                (r"(\d+)\.node2\.w", r"\1.first.node.w"),
                (r"(\d+)\.downsample\.0\.(.+)", r"\1.shortcut.0.norm.\2"),
                (r"(\d+)\.downsample\.1\.w", r"\1.shortcut.0.node.w"),
                (r"(\d+)\.downsample\.2\.(.+)", r"\1.shortcut.1.0.\2"),
            ),
        ),
        (r"rgb_fc\.(.+)", r"source_head.\1"),
        (r"dvs_fc\.(.+)", r"head.\1"),
        (r"(coefficient\.\d+)", r"\1"),
    ),
    unused=CONSTANTS,
    spec=_our_arguments,
    variants=_variants,
    defaults=lambda place, name: TRANSFER_DEFAULTS,
    further=True,
)
