"""What the model files of the STEP benchmark (Fancyssc/SpikingTransformerBenchmark) share.

Their neurons are BrainCog's LIF with a hard reset that is detached, firing at v >= threshold, with the sigmoid
surrogate of alpha 4 whatever the configuration says (`act_func` is passed, the neuron takes `act_fun`): our `lif`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from registry import Spec

FOLDER = "Fancyssc/SpikingTransformerBenchmark:cls/models/static/"

PATCH_RULES = (
    (r"patch_embed\.proj_(conv|bn)\.(.+)", r"embedding.stages.0.\1.\2"),
    (r"patch_embed\.proj_(conv|bn)(\d)\.(.+)", r"embedding.stages.\2.\1.\3"),
    (r"patch_embed\.rpe_(conv|bn)\.(.+)", r"embedding.position.\1.\2"),
)
# Each neuron's state_dict has its threshold and its surrogate's alpha: constants that the constructor sets.
CONSTANTS = (r"(?:.+\.)?threshold", r".+\.act_fun\.alpha")


def neuron(args: Mapping[str, Any]) -> Spec:
    """The node of an authors' constructor; its threshold as float32, which is how theirs holds it."""
    known = {"threshold": args["neuron"].get("v_threshold", 1.0), "tau": args["neuron"].get("tau", 2.0), **args}
    return Spec("lif", {"tau": float(known["tau"]), "threshold": float(np.float32(known["threshold"]))})


def arguments(args: Mapping[str, Any], step: int) -> dict[str, Any]:
    """The arguments that all their classes have; what a constructor's call leaves out has the class's default."""
    return {
        "num_classes": args.get("num_classes", 10),
        "in_channels": args.get("in_channels", 3),
        "img_size": args.get("img_size", 32),
        "step": args.get("step", step),
        "embed_dim": args.get("embed_dim", 384),
        "depth": args.get("depths", 4),
        "num_heads": args.get("num_heads", 12),
        "mlp_ratio": args.get("mlp_ratio", 4),
        "node": neuron(args),
    }
