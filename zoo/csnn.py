"""CSNN: the small convolutional network of the field's tutorials.

    from zoo import create_model

    create_model("csnn(channels=[8, 16])", img_size=28).head.in_features  # 256
    create_model("csnn(channels=[12, 32])", in_channels=2, img_size=34).head.in_features  # 800

Eshraghian et al. 2023, arXiv:2109.12894.
"""

from __future__ import annotations

from typing import Unpack

from torch import nn

from registry import register
from st_utils.backbone.arguments import ConvNetArguments
from st_utils.backbone.convnet import SpikingConvNet
from st_utils.errors import UserError
from st_utils.kernels.spike_conv.conv2d import Conv2d
from st_utils.layer import OverTime
from st_utils.node.base import build_node


@register.model("csnn", source="Eshraghian et al. 2023, arXiv:2109.12894; jeshraghian/snntorch, its tutorial 6")
class CSNN(SpikingConvNet, in_channels=1, img_size=28, step=4, node="lif(decay_input=false)"):
    """Two convolutions and a linear layer, 12C5-MP2-64C5-MP2-1024FC10, for 28 x 28 images; 29,826 parameters.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder   st_utils/encoder/direct.py   [T, B, 1, 28, 28]   the image at every step
        layers.0  st_utils/layer/over_time.py  [T, B, 12, 12, 12]  5 x 5 convolution, 2 x 2 max-pooling
        layers.1  st_utils/node/lif.py         [T, B, 12, 12, 12]  spikes
        layers.2  st_utils/layer/over_time.py  [T, B, 64, 4, 4]    5 x 5 convolution, 2 x 2 max-pooling
        layers.3  st_utils/node/lif.py         [T, B, 64, 4, 4]    spikes
        head      torch.nn                     [T, B, 10]          linear
        model     zoo/csnn.py                  [B, 10]             the mean over T

    The convolutions have no padding and no norm. Differs from the tutorials 6 and 7 of snnTorch: the logits are the
    currents of the last layer, where the tutorials count the spikes of one more neuron (`spiking_output`); T is 4, not
    50 (MNIST) or about 300 (N-MNIST); a spike resets the membrane to 0 at once, where the tutorials' subtracts the
    threshold in the next step.

    Args:
        channels: channels of each convolution.
        kernel: side of the convolutions' kernels.
        spiking_output: true puts a neuron behind the head: the logits of a step are its spikes, their mean over T is
            the firing rate of each class. Such a network is for one domain.
    """

    def __init__(
        self,
        *,
        channels: tuple[int, ...] = (12, 64),
        kernel: int = 5,
        spiking_output: bool = False,
        **arguments: Unpack[ConvNetArguments],
    ):
        if not channels or min(*channels, kernel) < 1:
            raise UserError(f"csnn: channels and kernel must be at least 1, not {list(channels)} and {kernel}")
        if spiking_output and arguments.get("transfer"):
            raise UserError("csnn: spiking_output=true has no linear head, which transfer=true needs")
        self.channels, self.kernel = channels, kernel
        super().__init__(**arguments)
        if spiking_output:
            node = build_node(arguments["node"], arguments["step"], self.head.out_features)
            self.head = nn.Sequential(self.head, node)

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
