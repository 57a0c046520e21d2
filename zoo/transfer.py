"""The networks that learn from static images what events mean: a VGG and a pre-activation ResNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from registry import Spec, register
from st_utils.backbone.convnet import SpikingConvNet
from st_utils.backbone.resnet import SpikingResNet
from st_utils.errors import UserError
from st_utils.layer import ConvNorm, ConvNormNode, OverTime, init_kaiming_normal
from st_utils.node.base import IntegrateAndFire
from zoo.authors_form import Form, Weights, learned
from zoo.constructor import Constructor
from zoo.published import Published, inside

SOURCE = "He et al. 2024, arXiv:2303.13077; Brain-Cog-Lab/Transfer-for-DVS"
NEURON = "lif(threshold=0.5, surrogate=qgate(strict=true))"
# BrainCog's names. Its neurons give the surrogates alpha 2, whatever theirs is.
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


def _authors_arguments(file: str, args: Constructor, step: int) -> dict[str, Any]:
    """What their constructors take; a threshold is held as float32 there."""
    node, surrogate = (getattr(args[name], "__name__", args[name]) for name in ("node_type", "act_fun"))
    if node not in NODES or surrogate not in SURROGATES:
        raise UserError(f"no node here is the authors' {node} with {surrogate}")
    if args["layer_by_layer"] or args["spike_output"] or args["encode_type"] != "direct":
        raise UserError("the authors' forward runs step by step, with encode_type direct and no spike_output")
    tau = {} if node == "IFNode" else {"tau": float(args["tau"])}
    more, channels = {"img_size": 48}, 2
    if "resnet" in file:
        more = {"stem": "conv7" if args["dataset"] == "imnet" else "conv3"}
        channels = 3 if args["dataset"] in ("cifar10", "cifar100", "imnet") else 2
    return {
        "num_classes": args["num_classes"],
        "in_channels": channels,
        "step": args["step"],
        "width": args["inplanes"],
        "node": Spec(
            NODES[node],
            {"threshold": float(np.float32(args["threshold"])), "surrogate": SURROGATES[surrogate], **tau},
        ),
        "transfer": True,
        "legacy_step_norm": True,
        **more,
    }


def _authors_forms(args: Mapping[str, Any], weights: Weights) -> list[Form]:
    """The weights tell the neurons' threshold, and PLIF by its `w`. Only the ResNet has stems, told by their shapes."""
    threshold = weights.constant(r".+\.threshold", 0.5)
    stems = [{"stem": "conv3"}, {"stem": "conv7"}] if "stem" in args else [{}]
    forms = []
    for name in NODES.values():
        for surrogate in SURROGATES.values():
            node = Spec(name, {"threshold": threshold, "surrogate": surrogate})
            fixed = {"node": node, "transfer": True, "legacy_step_norm": True}
            forms += [Form({**fixed, **stem}, FREE, **learned(node)) for stem in stems]
    return forms


@register.model("transfer_vgg", source=SOURCE)
class TransferVGG(SpikingConvNet, in_channels=2, img_size=48, step=10, node=NEURON):
    """Transfer-for-DVS's VGG, four pairs of 3 x 3 convolutions: 10,153,684 parameters, two heads, 101 classes.

    Norm and neuron follow each convolution, average pooling each pair; the widths are 1, 2, 4, 4 and four times 8
    times `width`. By itself it classifies images or events; with transfer=true it learns from both, see SpikingConvNet.
    What the domains share is then the last neurons' potential after the reset, `[T, B, 8 width, H / 8, W / 8]`.
    The authors' code runs step by step, so that batch norm sees one step at a time: legacy_step_norm=true.

    Args:
        width: channels of the first convolution.
    """

    published = Published(
        repositories=("Brain-Cog-Lab/Transfer-for-DVS:braincog/model_zoo/vgg_snn.py",),
        rules=(
            (r"feature\.(\d+\.(?:(?:conv|bn)\..+|node\.w))", r"layers.\1"),
            (r"rgb_fc\.1\.(.+)", r"source_head.\1"),
            (r"dvs_fc\.1\.(.+)", r"head.\1"),
            (r"(coefficient\.\d+)", r"\1"),
        ),
        unused=CONSTANTS,
        spec=_authors_arguments,
        forms=_authors_forms,
        defaults=lambda place, name: TRANSFER_DEFAULTS,
        further=True,
    )

    def __init__(self, *, width: int = 64, **settings: Any):
        self.width = width
        super().__init__(**settings)
        last = self.layers[-2].node
        if self.source_head is not None and not isinstance(last, IntegrateAndFire):
            raise UserError(
                f"{last.spec} has no membrane potential for domains to share: use if, lif, plif, klif or clif"
            )

    def make_layers(self, in_channels: int, size: tuple[int, int], step: int, node: str) -> tuple[nn.Sequential, int]:
        if min(size) < 16 or self.width < 1:
            raise UserError(f"transfer_vgg needs images of 16 x 16 at least and a width, not {size} and {self.width}")
        layers: list[nn.Module] = []
        channels = in_channels
        for pair in ((1, 2), (4, 4), (8, 8), (8, 8)):
            for times in pair:
                layers.append(ConvNormNode(channels, times * self.width, node, step, kernel=3))
                channels = times * self.width
            layers.append(OverTime(nn.AvgPool2d(2)))
        return nn.Sequential(*layers), channels * (size[0] // 16) * (size[1] // 16)

    def shared_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        *before, last, pool = self.layers
        currents = ConvNorm.forward(last, nn.Sequential(*before)(self.encoder(x)))
        return pool(last.node(currents)).flatten(2), last.node.potential(currents)


@register.model("transfer_resnet18", source=SOURCE)
class TransferResNet18(SpikingResNet, in_channels=2, img_size=48, step=6, style="norm", node=NEURON):
    """Transfer-for-DVS's pre-activation ResNet-18: 11,187,886 parameters, two heads, 20 classes.

    Real values run along the shortcuts and into the head, with a norm and no neuron before it. What the domains share
    with transfer=true (see SpikingConvNet) is what the heads see, `[T, B, 8 width]`. The authors' code runs step by
    step, so that batch norm sees one step at a time: legacy_step_norm=true.
    """

    published = Published(
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
        spec=_authors_arguments,
        forms=_authors_forms,
        defaults=lambda place, name: TRANSFER_DEFAULTS,
        further=True,
    )

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        init_kaiming_normal(self)
