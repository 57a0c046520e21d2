"""Names, arguments and variants of DTA-SNN (MnJnKIM/DTA-SNN)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from registry import Spec
from zoo.authors.constructor import ConstructorArguments
from zoo.authors.published import Published, inside
from zoo.authors.sew_resnet import BLOCK_RULES
from zoo.authors.variants import Variant

TXA_RULES = (
    (r"scale_t", "step_scale"),
    (r"scale_c", "channel_scale"),
    (r"conv_t\.weight", "mix_steps.weight"),
    (r"conv_c\.weight", "mix_channels.weight"),
)
TNA_RULES = (
    (r"encoding\.0\.(.+)", r"encode.\1"),
    (r"decoding\.(.+)", r"decode.\1"),
    (r"tca\.LTCA\.(.+)", r"local.\1"),
    (r"tca\.MLP_block\.0\.(.+)", r"squeeze.\1"),
    (r"tca\.MLP_block\.2\.(.+)", r"excite.\1"),
)
DTA_RULES = (*inside({"T_XA": "txa"}, TXA_RULES), *inside({"T_NA": "tna"}, TNA_RULES))
# Defaults of their two classes, of 18 and of 34 layers; the second has no form for events.
DTA_DEFAULTS = {"block": None, "layers": None, "num_classes": 10, "time_step": 6, "DTA_ON": True, "dvs": None}
WIDE_DEFAULTS = {**DTA_DEFAULTS, "num_classes": 1000, **dict.fromkeys(("groups", "width_per_group", "norm_layer"))}


def _our_arguments(file: str, args: ConstructorArguments, step: int) -> dict[str, Any]:
    neuron = args["neuron"]
    surrogate = Spec("triangle", {"strict": True})
    node = {
        "threshold": float(neuron.get("v_threshold", 1.0)),
        "tau": 1 / (1 - neuron.get("decay", 0.5)),
        "decay_input": False,
        "detach_reset": False,
        "surrogate": surrogate,
    }
    return {
        "num_classes": args["num_classes"],
        "in_channels": 2 if args["dvs"] else 3,
        "step": args["time_step"],
        "attention": Spec("dta", {"project": False}) if args["DTA_ON"] else None,
        "node": Spec("lif", node),
    }


PUBLISHED = Published(
    repositories=("MnJnKIM/DTA-SNN",),
    rules=(
        (r"(?:input_conv\.layer\.module|conv1)\.(.+)", r"layers.stem.conv.\1"),
        (r"(?:input_conv\.bn|bn1)\.bn\.(.+)", r"layers.stem.norm.\1"),
        *inside({"encoding": "layers.attention"}, DTA_RULES),
        *inside({f"layer{i}": f"layers.stage{i}" for i in range(4)}, BLOCK_RULES),
        (r"(?:fc|fc1_s)\.layer\.module\.(.+)", r"head.\1"),
    ),
    # a checkpoint holds these tensors twice, under a second name
    unused=(r"(?:.+\.)?conv[12]_s\..+", r".+\.seqbn\..+"),
    spec=_our_arguments,
    variants=lambda args, weights: [Variant(), Variant({"attention": None})],
    defaults=lambda place, name: WIDE_DEFAULTS if name.lower() == "dta_snn_34" else DTA_DEFAULTS,
)


PUBLISHED_34 = replace(PUBLISHED, repositories=("MnJnKIM/DTA-SNN:models/DTA_SNN.py:DTA_SNN_34",))
