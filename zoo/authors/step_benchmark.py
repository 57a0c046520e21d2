"""What the model files of the STEP benchmark (Fancyssc/SpikingTransformerBenchmark) share: arguments, names, neurons.

    import torch
    from zoo.authors.step_benchmark import LIF, with_threshold_of
    from zoo.authors.variants import Weights

    str(with_threshold_of(LIF, Weights({"head_lif.threshold": torch.tensor(0.5)})))  # 'lif(threshold=0.5)'

Their neurons are BrainCog's LIF with a detached hard reset. It fires at v >= threshold and has the sigmoid surrogate
with alpha 4, whatever the configuration says: the files pass `act_func`, the neuron takes `act_fun`. This is our `lif`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from registry import Spec
from st_utils.errors import UserError
from zoo.authors.constructor import ConstructorArguments
from zoo.authors.variants import Weights

FOLDER = "Fancyssc/SpikingTransformerBenchmark:cls/models/static/"

DEFAULTS = {
    "step": 4,
    "img_size": 32,
    "in_channels": 3,
    "num_classes": 10,
    "embed_dim": 384,
    "num_heads": 12,
    "mlp_ratio": 4,
    "depths": 4,
    "tau": 2.0,
    "threshold": 1.0,
    "attn_scale": 0.125,
    **dict.fromkeys(["patch_size", "mlp_drop", "attn_drop", "node", "act_func", "alpha", "layer_by_layer"]),
}
LIF = Spec("lif")
TAU = {"node.tau": "tau of the constructor: the weights do not tell"}
SCALE = {"attention.scale": "attn_scale of the constructor: the weights do not tell", **TAU}

PATCH_RULES = (
    (r"patch_embed\.proj_(conv|bn)\.(.+)", r"embedding.stages.0.\1.\2"),
    (r"patch_embed\.proj_(conv|bn)(\d)\.(.+)", r"embedding.stages.\2.\1.\3"),
    (r"patch_embed\.rpe_(conv|bn)\.(.+)", r"embedding.position.\1.\2"),
)
# Constants in a checkpoint: each neuron's threshold and its surrogate's alpha, set by the constructor.
THRESHOLD = r"(?!.*\bTIM\.)(?:.+\.)?(?!attn_lif\.)[^.]+\.threshold"
ATTN_THRESHOLD = r".+\.attn_lif\.threshold"
CONSTANTS = (r"(?:.+\.)?threshold", r".+\.act_fun\.alpha")


def lif_of(args: ConstructorArguments) -> Spec:
    """The `lif` of these arguments; its threshold is rounded to float32, in which their code holds it."""
    kind = getattr(args["node"], "__name__", args["node"])
    if kind not in (None, "LIFNode"):
        raise UserError(f"{args.where} has LIFNode in its published form, not {kind}: write the spec by hand")
    tau = args.given.get("tau", args["neuron"].get("tau", args["tau"]))
    threshold = args.given.get("threshold", args["neuron"].get("v_threshold", args["threshold"]))
    return Spec("lif", {"tau": float(tau), "threshold": float(np.float32(threshold))})


def shared_arguments(args: ConstructorArguments) -> dict[str, Any]:
    """Our arguments for those that all their classes have."""
    return {
        "num_classes": args["num_classes"],
        "in_channels": args["in_channels"],
        "img_size": args["img_size"],
        "step": args["step"],
        "embed_dim": args["embed_dim"],
        "depth": args["depths"],
        "num_heads": args["num_heads"],
        "mlp_ratio": args["mlp_ratio"],
        "node": lif_of(args),
    }


def with_threshold_of(node: Spec, weights: Weights) -> Spec:
    """The node with the threshold that the weights hold; its tau is not among them."""
    return node.replace(threshold=weights.constant(THRESHOLD, 1.0))
