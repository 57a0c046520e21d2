"""SEW-ResNet: residual networks whose shortcuts connect spikes element by element."""

from __future__ import annotations

from typing import Any

from registry import register
from st_utils.backbone.resnet import SpikingResNet
from st_utils.layer import init_kaiming_normal
from zoo.authors_form import Form
from zoo.published import Published, Rules, inside

# A block's layers; DTA-SNN's norms are one module deeper.
BLOCK_RULES: Rules = (
    (r"(\d+)\.conv1\.(.+)", r"\1.first.conv.\2"),
    (r"(\d+)\.bn1\.(?:bn\.)?(\w+)", r"\1.first.norm.\2"),
    (r"(\d+)\.conv2\.(.+)", r"\1.second.conv.\2"),
    (r"(\d+)\.bn2\.(?:bn\.)?(\w+)", r"\1.second.norm.\2"),
    (r"(\d+)\.downsample\.(?:0|layer\.module)\.(.+)", r"\1.shortcut.0.conv.\2"),
    (r"(\d+)\.downsample\.(?:1|bn\.bn)\.(.+)", r"\1.shortcut.0.norm.\2"),
)


SEW_DEFAULTS = {"num_classes": 1000, "cnf": "ADD", "spiking_neuron": None}
FREE = {
    "connect": "cnf of the function: the weights do not tell",
    "node": "spiking_neuron of the function: SpikingJelly's weights come without one",
    "width": "the weights' shapes tell",
}


@register.model(
    "sew_resnet18", source="Fang et al. 2021, arXiv:2102.04159; SpikingJelly's sew_resnet18, fangwei123456/spikingjelly"
)
class SEWResNet18(SpikingResNet, img_size=224, stem="conv7_pool"):
    """SEW-ResNet-18 (the default is ImageNet's form; 11,689,512 parameters at 1000 classes).

    `stem="conv3"` is the form for small images. With connect="add", the paper's best, integers run along the
    shortcuts; with "and" and "iand" spikes. As SpikingJelly's `sew_resnet18`, whose weights `load_published` takes
    (`cnf` is our `connect`); its neurons are the caller's, here `lif` unless the spec says otherwise.
    """

    published = Published(
        repositories=("fangwei123456/spikingjelly:spikingjelly/activation_based/model/sew_resnet.py",),
        rules=(
            (r"conv1\.(.+)", r"layers.stem.conv.\1"),
            (r"bn1\.(.+)", r"layers.stem.norm.\1"),
            *inside({f"layer{i + 1}": f"layers.stage{i}" for i in range(4)}, BLOCK_RULES),
            (r"fc\.(.+)", r"head.\1"),
        ),
        unused=(),
        spec=lambda file, args, step: {
            "num_classes": args["num_classes"],
            "connect": str(args["cnf"]).lower(),
            "step": step,
        },
        forms=lambda args, weights: [Form({}, FREE)],
        defaults=lambda place, name: SEW_DEFAULTS,
        further=True,
    )

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        init_kaiming_normal(self)
