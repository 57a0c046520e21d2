"""The residual networks: one skeleton for spike-element-wise, membrane-shortcut and pre-activation blocks."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Literal

from torch import Tensor, nn

from registry import create, entry
from st_utils.backbone.convnet import SpikingConvNet
from st_utils.errors import UserError
from st_utils.kernels.spike_conv.op import Conv2d
from st_utils.layer import ConvNorm, ConvNormNode, NormNode, OverTime
from st_utils.node.base import build_node

Style = Literal["spike", "membrane", "norm"]
Connect = Literal["add", "and", "iand"]
STEMS = {"conv3": (3, 1, False), "conv7": (7, 2, False), "conv7_pool": (7, 2, True)}  # kernel, stride, max-pooling


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, `[T, B, C, H, W]` -> `[T, B, C', H', W']`.

    spike: each convolution is followed by norm and neuron, and the two branches' spikes are connected (SEW-ResNet).
    membrane: neuron, convolution, norm; membrane potentials run along the shortcut (MS-ResNet, arXiv:2112.08954).
    norm: norm, neuron, convolution (He et al. 2016, arXiv:1603.05027). Where the shape changes the shortcut is a
    1 x 1 convolution with norm; with a neuron too for `spike`, and for `norm` with norm and neuron before it.

    Args:
        connect: x + y, x y or x (1 - y) of the shortcut x and the branch y; all but the first want spikes.
    """

    def __init__(self, before: int, after: int, stride: int, style: Style, connect: Connect, node: str, step: int):
        super().__init__()
        self.connect = connect
        self.opening = opening(style, before, node, step)
        self.first = ConvNormNode(before, after, node, step, kernel=3, stride=stride)
        self.second = closing(style, after, after, node, step, kernel=3)
        self.shortcut = nn.Identity()
        if stride != 1 or before != after:
            lead = [opening(style, before, node, step)] if style == "norm" else []
            self.shortcut = nn.Sequential(*lead, closing(style, before, after, node, step, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(self.opening(x)))
        x = self.shortcut(x)
        if self.connect == "add":
            return x + y
        return x * y if self.connect == "and" else x * (1 - y)


def opening(style: Style, channels: int, node: str, step: int) -> nn.Module:
    """What stands before a branch's convolution in each style."""
    if style == "spike":
        return nn.Identity()
    return build_node(node, step, channels) if style == "membrane" else NormNode(channels, node, step)


def closing(style: Style, before: int, after: int, node: str, step: int, kernel: int = 1, stride: int = 1) -> nn.Module:
    """A convolution with what follows it in each style."""
    if style == "spike":
        return ConvNormNode(before, after, node, step, kernel, stride)
    if style == "membrane":
        return ConvNorm(before, after, kernel, stride)
    return OverTime(Conv2d(before, after, kernel, stride, kernel // 2, bias=False))


class SpikingResNet(SpikingConvNet):
    """`[B, C, H, W]` images or `[B, T, C, H, W]` frames -> logits `[B, num_classes]`; see SpikingConvNet.

    Args:
        width: channels of the stem; those of stage i are 2^i times as many.
        depths: blocks of each stage.
        strides: of the first block of each stage.
        stem: a 3 x 3 convolution; one of 7 x 7 and stride 2; that with max-pooling to half the size after it.
        style, connect: of the blocks, see ResidualBlock. Before the mean over pixels stands a neuron for `membrane`,
            a norm for `norm`.
        attention: between stem and blocks; none leaves it out.
        num_heads: of attentions that have heads.
    """

    def __init__(
        self,
        *,
        width: int = 64,
        depths: tuple[int, ...] = (2, 2, 2, 2),
        strides: tuple[int, ...] = (1, 2, 2, 2),
        stem: Literal["conv3", "conv7", "conv7_pool"] = "conv3",
        style: Style = "spike",
        connect: Connect = "add",
        attention: str | None = None,
        num_heads: int = 8,
        **settings: Any,
    ):
        if len(depths) != len(strides):
            raise UserError(f"depths and strides must be of one length, not {len(depths)} and {len(strides)}")
        if connect != "add" and style != "spike":
            raise UserError(f'connect="{connect}" is of spikes: style={style} can only add')
        if min(width, *strides) < 1 or sum(depths) < 1 or min(depths) < 0:
            raise UserError("width and strides must be at least 1, and depths have a block")
        self.width, self.depths, self.strides, self.stem = width, depths, strides, stem
        self.style, self.connect, self.attention, self.num_heads = style, connect, attention, num_heads
        super().__init__(**settings)

    def make_layers(self, in_channels: int, size: tuple[int, int], step: int, node: str) -> tuple[nn.Sequential, int]:
        parts = self.style, self.connect, node, step
        layers = self.make_stem(in_channels, size, step, node)
        channels = self.width
        for i, (depth, stride) in enumerate(zip(self.depths, self.strides, strict=True)):
            stage = []
            for block in range(depth):
                stage.append(ResidualBlock(channels, self.width * 2**i, 1 if block else stride, *parts))
                channels = self.width * 2**i
            layers[f"stage{i}"] = nn.Sequential(*stage)
        if self.style == "membrane":
            layers["tail"] = build_node(node, step, channels)
        elif self.style == "norm":
            layers["tail"] = OverTime(nn.BatchNorm2d(channels))
        return nn.Sequential(OrderedDict(layers, mean=OverTime(nn.AdaptiveAvgPool2d(1)))), channels

    def make_stem(self, in_channels: int, size: tuple[int, int], step: int, node: str) -> dict[str, nn.Module]:
        """The layers before the first block: convolution, pooling, attention."""
        kernel, stride, pool = STEMS[self.stem]
        layers = {"stem": closing(self.style, in_channels, self.width, node, step, kernel, stride)}
        if pool:
            layers["pool"] = OverTime(nn.MaxPool2d(3, 2, padding=1))
        if self.attention is not None:
            offer = {"dim": self.width, "num_heads": self.num_heads, "step": step, "node": node}
            if "grid" in entry("attention", self.attention).params:
                shrink = stride * (2 if pool else 1)
                offer["grid"] = tuple(-(-length // shrink) for length in size)
            layers["attention"] = create("attention", self.attention, **offer)
        return layers
