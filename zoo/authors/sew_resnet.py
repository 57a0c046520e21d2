"""Names, arguments and variants of SEW-ResNet in SpikingJelly (fangwei123456/spikingjelly)."""

from __future__ import annotations

from zoo.authors.published import Published, Rules, inside
from zoo.authors.variants import Variant

# The layers of a block, for DTA-SNN too, whose norms are one module deeper.
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
PUBLISHED = Published(
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
    variants=lambda args, weights: [Variant({}, FREE)],
    defaults=lambda place, name: SEW_DEFAULTS,
    further=True,
)
