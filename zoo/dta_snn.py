"""DTA-SNN: MS-ResNets with dual temporal-channel attention behind the stem."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from registry import Spec, register
from st_utils.backbone.resnet import SpikingResNet
from st_utils.papers import DTA_SNN
from zoo.authors_form import Form
from zoo.constructor import Constructor
from zoo.published import Published, inside
from zoo.sew_resnet import BLOCK_RULES

# Their neuron decays by half and adds the input whole, fires above the threshold, and lets gradients through the reset.
NEURON = "lif(decay_input=false, detach_reset=false, surrogate=triangle(strict=true))"
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


# Of both classes; that of 34 layers has no events.
DTA_DEFAULTS = {"block": None, "layers": None, "num_classes": 10, "time_step": 6, "DTA_ON": True, "dvs": None}
WIDE_DEFAULTS = {**DTA_DEFAULTS, "num_classes": 1000, **dict.fromkeys(("groups", "width_per_group", "norm_layer"))}


def _authors_arguments(file: str, args: Constructor, step: int) -> dict[str, Any]:
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
    # second names of the same tensors
    unused=(r"(?:.+\.)?conv[12]_s\..+", r".+\.seqbn\..+"),
    spec=_authors_arguments,
    forms=lambda args, weights: [Form(), Form({"attention": None})],
    defaults=lambda place, name: WIDE_DEFAULTS if name.lower() == "dta_snn_34" else DTA_DEFAULTS,
)


@register.model("dta_snn18", source=DTA_SNN)
class DTASNN18(
    SpikingResNet,
    step=6,
    depths=(0, 3, 3, 2),
    strides=(1, 1, 2, 2),
    style="membrane",
    attention="dta(project=false)",
    node=NEURON,
):
    """DTA-SNN-18 for CIFAR (12,993,336 parameters at 6 steps): dual temporal-channel attention, then an MS-ResNet.

    `attention=none` is their DTA off, with no neuron between stem and blocks; any other attention stands in its place.
    Events: in_channels=2, step=10. Differs from the authors' code in nothing that changes numbers; theirs gives the
    logits as [B, T, classes], and lets the caller take the mean.
    """

    published = PUBLISHED


@register.model("dta_snn34", source=DTA_SNN)
class DTASNN34(DTASNN18, img_size=224, depths=(3, 4, 6, 3), stem="conv7"):
    """DTA-SNN-34 for ImageNet (22,288,918 parameters at 6 steps and 1000 classes); see `dta_snn18`.

    The authors' class fails in its forward until an attribute `GAC` is set: this is what it then computes.
    """

    published = replace(PUBLISHED, repositories=("MnJnKIM/DTA-SNN:models/DTA_SNN.py:DTA_SNN_34",))
