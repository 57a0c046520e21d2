"""The residual networks: one skeleton for SEW-ResNet, MS-ResNet and pre-activation blocks.

Example:
    import torch
    from zoo import create_model

    model = create_model('sew_resnet18(width=8, connect="iand", stem=conv3)', step=2)
    model(torch.rand(2, 3, 32, 32)).shape  # -> torch.Size([2, 10])
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import NamedTuple, Unpack

from torch import Tensor, nn

from registry import create, entry
from st_utils.backbone.arguments import Connect, ConvNetArguments, ResNetArguments, Stem, Style
from st_utils.backbone.convnet import SpikingConvNet
from st_utils.errors import UserError
from st_utils.kernels.spike_conv.conv2d import Conv2d
from st_utils.layer import ConvNorm, ConvNormNode, NormNode, OverTime
from st_utils.node.base import build_node


class StemLayers(NamedTuple):
    """The first convolution, and whether max-pooling to half the size follows it."""

    kernel: int
    stride: int
    pool: bool


STEMS = {
    "conv3": StemLayers(kernel=3, stride=1, pool=False),
    "conv7": StemLayers(kernel=7, stride=2, pool=False),
    "conv7_pool": StemLayers(kernel=7, stride=2, pool=True),
}


class ResidualBlock(nn.Module):
    """Residual block of two 3 x 3 convolutions, `[T, B, C, H, W]` -> `[T, B, C', H', W']`.

        style      twice in the branch        shortcut where the shape changes   source
        spike      convolution, norm, neuron  conv 1 x 1, norm, neuron           SEW-ResNet, arXiv:2102.04159
        membrane   neuron, convolution, norm  conv 1 x 1, norm                   MS-ResNet, arXiv:2112.08954
        norm       norm, neuron, convolution  norm, neuron, conv 1 x 1           He et al. 2016, arXiv:1603.05027

    Elsewhere the shortcut is the identity. Spikes run along it in `spike`, real values in the other two.

    Args:
        before, after: channels C and C'.
        stride: stride of the first convolution.
        connect: how the shortcut x and the branch y are joined: "add" is x + y, "and" is x y, "iand" is x (1 - y);
            the last two need spikes.
    """

    def __init__(self, before: int, after: int, stride: int, style: Style, connect: Connect, node: str, step: int):
        super().__init__()
        self.connect = connect
        self.opening = opening(style, before, node, step)
        self.first = ConvNormNode(before, after, node, step, kernel=3, stride=stride)
        self.second = closing(style, after, after, node=node, step=step, kernel=3)
        self.shortcut = nn.Identity()
        if stride != 1 or before != after:
            lead = [opening(style, before, node, step)] if style == "norm" else []
            self.shortcut = nn.Sequential(*lead, closing(style, before, after, node=node, step=step, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(self.opening(x)))
        x = self.shortcut(x)
        if self.connect == "add":
            return x + y
        return x * y if self.connect == "and" else x * (1 - y)


def opening(style: Style, channels: int, node: str, step: int) -> nn.Module:
    """The layers before a branch's first convolution: none, a neuron, or norm and neuron."""
    if style == "spike":
        return nn.Identity()
    return build_node(node, step, channels) if style == "membrane" else NormNode(channels, node, step)


def closing(style: Style, before: int, after: int, node: str, step: int, kernel: int = 1, stride: int = 1) -> nn.Module:
    """A branch's last convolution and the layers after it: norm and neuron, norm, or none."""
    if style == "spike":
        return ConvNormNode(before, after, node=node, step=step, kernel=kernel, stride=stride)
    if style == "membrane":
        return ConvNorm(before, after, kernel=kernel, stride=stride)
    return OverTime(Conv2d(before, after, kernel, stride, kernel // 2, bias=False))


class SpikingResNet(SpikingConvNet):
    """Spiking residual network: stem, attention where wanted, stages of residual blocks, mean over pixels, head.

    Images `[B, C, H, W]` or frames `[B, T, C, H, W]` -> logits `[B, num_classes]`. After the blocks, `membrane` has a
    neuron and `norm` a norm.

    Args:
        width: channels of the stem and of stage 0; stage i has 2^i width.
        depths: number of blocks per stage.
        strides: stride of the first block of each stage.
        stem: "conv3" is a 3 x 3 convolution, "conv7" a 7 x 7 convolution with stride 2, "conv7_pool" that and
            max-pooling to half the size.
        style, connect: see ResidualBlock.
        attention: spec of an attention between stem and blocks; `none` has none.
        num_heads: offered to the attention.

    The other arguments are those of SpikingConvNet.

    Raises:
        UserError: depths and strides differ in length, a number is too small, or `connect` needs spikes.
    """

    def __init_subclass__(cls, **defaults: Unpack[ResNetArguments]):  # typed: a checker knows the class keywords
        super().__init_subclass__(**defaults)

    def __init__(
        self,
        *,
        width: int = 64,
        depths: tuple[int, ...] = (2, 2, 2, 2),
        strides: tuple[int, ...] = (1, 2, 2, 2),
        stem: Stem = "conv3",
        style: Style = "spike",
        connect: Connect = "add",
        attention: str | None = None,
        num_heads: int = 8,
        **arguments: Unpack[ConvNetArguments],
    ):
        if len(depths) != len(strides):
            raise UserError(f"depths and strides must be of one length, not {len(depths)} and {len(strides)}")
        if connect != "add" and style != "spike":
            raise UserError(f'connect="{connect}" is of spikes: style={style} can only add')
        if min(width, *strides) < 1 or sum(depths) < 1 or min(depths) < 0:
            raise UserError("width and strides must be at least 1, and depths have a block")
        self.width, self.depths, self.strides, self.stem = width, depths, strides, stem
        self.style, self.connect, self.attention, self.num_heads = style, connect, attention, num_heads
        super().__init__(**arguments)

    def make_layers(self, in_channels: int, size: tuple[int, int], step: int, node: str) -> tuple[nn.Sequential, int]:
        block = partial(ResidualBlock, style=self.style, connect=self.connect, node=node, step=step)
        layers = self.make_stem(in_channels, size, step, node)
        channels = self.width
        for i, (depth, stride) in enumerate(zip(self.depths, self.strides, strict=True)):
            stage = []
            for number in range(depth):
                stage.append(block(channels, self.width * 2**i, stride=1 if number else stride))
                channels = self.width * 2**i
            layers[f"stage{i}"] = nn.Sequential(*stage)
        if self.style == "membrane":
            layers["tail"] = build_node(node, step, channels)
        elif self.style == "norm":
            layers["tail"] = OverTime(nn.BatchNorm2d(channels))
        return nn.Sequential(OrderedDict(layers, mean=OverTime(nn.AdaptiveAvgPool2d(1)))), channels

    def make_stem(self, in_channels: int, size: tuple[int, int], step: int, node: str) -> dict[str, nn.Module]:
        """The layers before the first block by name: `stem`, then `pool` and `attention` where wanted."""
        form = STEMS[self.stem]
        conv = {"kernel": form.kernel, "stride": form.stride}
        layers = {"stem": closing(self.style, in_channels, self.width, node=node, step=step, **conv)}
        if form.pool:
            layers["pool"] = OverTime(nn.MaxPool2d(3, 2, padding=1))
        if self.attention is not None:
            offer = {"dim": self.width, "num_heads": self.num_heads, "step": step, "node": node}
            if "grid" in entry("attention", self.attention).params:
                shrink = form.stride * (2 if form.pool else 1)
                offer["grid"] = tuple(-(-length // shrink) for length in size)
            layers["attention"] = create("attention", self.attention, **offer)
        return layers
