"""`braincog.<name>`: the networks of BrainCog's model zoo, with any node and any number of input channels.

    from zoo import create_model

    create_model("braincog.SNN7_tiny(node=plif)", num_classes=3).spec  # 'braincog.SNN7_tiny(node=plif, num_classes=3)'

The networks are BrainCog's own code. Those that can't be such a classifier say why when they are built (`REFUSED`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, get_type_hints

from torch import Tensor, nn

from registry import Spec, entry, parse, register
from st_utils.braincog.imports import PREFIX, VERSION, import_braincog, network_modules
from st_utils.braincog.our_nodes import braincog_node
from st_utils.errors import UserError
from st_utils.kernels.spike_conv.conv2d import use_conv2d

# Side of the images, in pixels, for networks that take only one.
SIZES = {"SNN7_tiny": 32, "SNN5": 48, "VGG_SNN": 48, "mnist_convnet": 28}
_CONVNET = "it is the class behind mnist_convnet, cifar_convnet and dvs_convnet: choose one of these"
_STDP = "it learns by STDP, not by gradients, and sees no images"
REFUSED = {
    "BaseConvNet": _CONVNET,
    "CifarConvNet": _CONVNET,
    "MNISTConvNet": _CONVNET,
    "ResNet": "it is the class behind resnet18 and its like: choose one of these",
    "SEWResNet": "it is the class behind sew_resnet18 and its like: choose one of these",
    "CIFARNet": "its neurons (BackEINode) and its 10 classes are fixed",
    "MNISTNet": "its neurons (BackEINode) and its 10 classes are fixed",
    "BaseGLSNN": "it learns by a rule of its own (global feedback) from flat 28 x 28 images",
    "BDMSNN": "it is a simulation of the basal ganglia that picks an action, not a classifier",
    "Net": "it learns by a rule of its own, from images in superposition with their negatives, on CUDA only",
    "RSNN": _STDP,
    "droDMTrainNet": _STDP,
    "droDMTestNet": _STDP,
    "sew_resnext101_32x8d": "it always fails: BrainCog gives its builder an argument too many",
    "sew_resnext34_32x4d": "it always fails: BrainCog's basic block has no grouped convolutions",
}


class BrainCogNet(nn.Module):
    """BrainCog's network `name`: images `[B, C, H, W]` or frames `[B, T, C, H, W]` -> logits `[B, num_classes]`.

    With `per_step=True` it returns the logits of each step, `[T, B, num_classes]`. BrainCog's code builds the network
    and runs all steps at once (its layer_by_layer). A first convolution for another number of channels than
    `in_channels` is replaced by a new one with He's normal weights.

    Args:
        name: the network, without `braincog.`.
        node: any node of the registry; the default is BrainCog's own.
        connect: how the shortcuts of the `sew_*` networks join: x + y, x y or x (1 - y).

    Raises:
        UserError: the network can't be such a classifier, for the reason given; it does not take the image size.
    """

    def __init__(
        self,
        name: str,
        *,
        num_classes: int = 10,
        in_channels: int = 3,
        img_size: int | tuple[int, int] = 32,
        step: int = 4,
        node: str = "braincog.LIFNode",
        connect: Literal["add", "and", "iand"] = "add",
    ):
        super().__init__()
        if name in REFUSED:
            raise UserError(f"{PREFIX}{name} is no model here: {REFUSED[name]}")
        side = SIZES.get(name, img_size)
        if img_size not in (side, (side, side)):
            raise UserError(f"{PREFIX}{name} takes images of {side} x {side}, not {img_size}: set img_size={side}")
        more = {"cnf": connect.upper()} if name.startswith("sew_") else {}
        self.network = getattr(import_braincog(network_modules()[name]), name)(
            num_classes=num_classes,
            step=step,
            encode_type="direct",
            spike_output=False,
            layer_by_layer=True,
            dataset="dvsc10" if name == "VGG_SNN" else "cifar10",  # BrainCog sets the channels by its name
            node_type=braincog_node(node, step=step),
            threshold=_threshold(node),
            **more,
        )
        self.step = step
        _take_channels(self.network, in_channels)
        use_conv2d(self.network)
        self._last = [m for m in self.network.modules() if isinstance(m, nn.Linear)][-1:]

    def forward(self, x: Tensor, per_step: bool = False) -> Tensor:
        if x.dim() == 5 and x.shape[1] != self.step:
            raise UserError(f"the input has {x.shape[1]} frames and the model step={self.step}: make them equal")
        seen: list[Tensor] = []
        handle = self._last[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        try:
            logits = self.network(x)
        finally:
            handle.remove()
            self.network.reset()
        return seen[0].unflatten(0, (self.step, -1)) if per_step else logits


def _threshold(node: str | Spec) -> float:
    """The node's threshold, which BrainCog's threshold-dependent norm needs; 1 for a node without one."""
    spec = parse(node)
    known = entry("node", spec).params.get("threshold")
    return float(spec.args.get("threshold", known.default)) if known else 1.0


def _take_channels(network: nn.Module, in_channels: int) -> None:
    """Replace the network's first convolution if it takes another number of channels."""
    name, first = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    if first.in_channels == in_channels:
        return
    shape = {"kernel_size": first.kernel_size, "stride": first.stride, "padding": first.padding}
    conv = nn.Conv2d(in_channels, first.out_channels, bias=first.bias is not None, **shape)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    parent, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(parent), leaf, conv)


def network_names() -> list[str]:
    """List `braincog.<name>` for every network; empty when BrainCog is not installed."""
    return [PREFIX + name for name in network_modules()]


def _builder(name: str) -> Callable[..., BrainCogNet]:
    """The function that the registry calls for `braincog.<name>`: BrainCogNet with the arguments that it has."""
    short = name.removeprefix(PREFIX)
    side = SIZES.get(short, 32)

    def build(**args: Any) -> BrainCogNet:
        return BrainCogNet(short, **{"img_size": side, **args})

    parameters = dict(list(inspect.signature(BrainCogNet).parameters.items())[1:])
    parameters["img_size"] = parameters["img_size"].replace(default=side)
    if not short.startswith("sew_"):
        del parameters["connect"]
    hints = get_type_hints(BrainCogNet.__init__)
    build.__name__ = build.__qualname__ = name
    build.__signature__ = inspect.Signature(list(parameters.values()))
    build.__annotations__ = {key: hints[key] for key in parameters}
    reason = REFUSED.get(short)
    build.__doc__ = f"No model here: {reason}." if reason else f"BrainCog's {short}."
    return build


register.family("model", PREFIX, network_names, _builder, source=f"BrainCog {VERSION}")
