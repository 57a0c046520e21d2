"""CSNN, the small convolutional network of the field's tutorials."""

from __future__ import annotations

from typing import Any

from torch import nn

from registry import register
from st_utils.backbone.convnet import SpikingConvNet
from st_utils.errors import UserError
from st_utils.kernels.spike_conv.conv2d import Conv2d
from st_utils.layer import OverTime
from st_utils.node.base import build_node


@register.model("csnn", source="Eshraghian et al. 2023, arXiv:2109.12894; jeshraghian/snntorch, its tutorial 6")
class CSNN(SpikingConvNet, in_channels=1, img_size=28, node="lif(decay_input=false)"):
    """12C5-MP2-64C5-MP2-1024FC10, 29,826 parameters for 28 x 28 images.

    Each convolution, without padding or norm, is followed by max-pooling to half the size and a neuron; the logits
    are the last layer's currents, where the tutorial has one more neuron and counts its spikes.

    Args:
        channels: of each convolution.
        kernel: of the convolutions.
    """

    def __init__(self, *, channels: tuple[int, ...] = (12, 64), kernel: int = 5, **settings: Any):
        if not channels or min(*channels, kernel) < 1:
            raise UserError(f"csnn: channels and kernel must be at least 1, not {list(channels)} and {kernel}")
        self.channels, self.kernel = channels, kernel
        super().__init__(**settings)

    def make_layers(self, in_channels: int, size: tuple[int, int], step: int, node: str) -> tuple[nn.Sequential, int]:
        layers: list[nn.Module] = []
        height, width = size
        for before, after in zip((in_channels, *self.channels), self.channels, strict=False):
            height, width = (height - self.kernel + 1) // 2, (width - self.kernel + 1) // 2
            layers += [
                OverTime(Conv2d(before, after, self.kernel), nn.MaxPool2d(2)),
                build_node(node, step, after),
            ]
        if min(height, width) < 1:
            raise UserError(f"csnn: {size[0]} x {size[1]} pixels are too few for {len(self.channels)} convolutions")
        return nn.Sequential(*layers), self.channels[-1] * height * width
