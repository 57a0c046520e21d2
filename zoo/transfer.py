"""Transfer-for-DVS: networks that learn from static images what events mean, a VGG, a small network and a ResNet.

    import torch
    from zoo import create_model

    model = create_model("transfer_vgg(width=4, transfer=true)", img_size=16, step=2).eval()
    logits, shared = model(torch.rand(3, 2, 16, 16), torch.rand(3, 2, 2, 16, 16))
    tuple(logits.shape)  # (2, 2, 3, 10)

He et al. 2024, arXiv:2303.13077. Authors' weights and arguments: zoo/authors/transfer.py.
"""

from __future__ import annotations

from typing import Unpack

from torch import Tensor, nn

from registry import register
from st_utils.backbone.arguments import ConvNetArguments, ResNetArguments
from st_utils.backbone.convnet import SpikingConvNet
from st_utils.backbone.resnet import SpikingResNet
from st_utils.errors import UserError
from st_utils.layer import Conv2d, ConvNorm, ConvNormNode, OverTime, init_kaiming_normal
from st_utils.node.base import IntegrateAndFire, build_node
from zoo.authors.transfer import PUBLISHED_RESNET18, PUBLISHED_VGG

SOURCE = "He et al. 2024, arXiv:2303.13077; Brain-Cog-Lab/Transfer-for-DVS"
NEURON = "lif(threshold=0.5, surrogate=qgate(strict=true))"
SCNN_NEURON = "lif(threshold=0.5, surrogate=rectangle(strict=true))"


@register.model("transfer_vgg", aliases=("transfer_vgg_snn",), source=SOURCE)
class TransferVGG(SpikingConvNet, in_channels=2, img_size=48, step=10, node=NEURON):
    """VGG that learns events from images too; 10,153,684 parameters with two heads and 101 classes.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder      st_utils/encoder/direct.py   [T, B, 2, 48, 48]    event frames, or the image T times
        layers.0     st_utils/layer/conv_norm.py  [T, B, 64, 48, 48]   3 x 3 convolution, norm, node
        layers.1     st_utils/layer/conv_norm.py  [T, B, 128, 48, 48]  3 x 3 convolution, norm, node
        layers.2     st_utils/layer/over_time.py  [T, B, 128, 24, 24]  2 x 2 average pooling
        layers.3-4   st_utils/layer/conv_norm.py  [T, B, 256, 24, 24]  the second pair
        layers.5     st_utils/layer/over_time.py  [T, B, 256, 12, 12]  2 x 2 average pooling
        layers.6-7   st_utils/layer/conv_norm.py  [T, B, 512, 12, 12]  the third pair
        layers.8     st_utils/layer/over_time.py  [T, B, 512, 6, 6]    2 x 2 average pooling
        layers.9-10  st_utils/layer/conv_norm.py  [T, B, 512, 6, 6]    the fourth pair
        layers.11    st_utils/layer/over_time.py  [T, B, 512, 3, 3]    2 x 2 average pooling
        head         torch.nn                     [T, B, 10]           linear, from 512 x 3 x 3 values
        model        zoo/transfer.py              [B, 10]              the mean over T

    It is Transfer-for-DVS's VGG: four pairs of 3 x 3 convolutions. By itself it classifies images or events. With
    transfer=true it learns from both (see SpikingConvNet): a second head is for images, and the two domains share the
    membrane potential of the last neurons after their reset, `[T, B, 8 width, H / 8, W / 8]`. The authors' code runs
    step by step, so that batch norm sees one step at a time: legacy_step_norm=true.

    Args:
        width: channels of the first convolution; the next have 2, 4, 4, 8, 8, 8 and 8 times as many.
    """

    published = PUBLISHED_VGG

    def __init__(self, *, width: int = 64, **arguments: Unpack[ConvNetArguments]):
        self.width = width
        super().__init__(**arguments)
        last = self.layers[-2].node
        if hasattr(self, "coefficient") and not isinstance(last, IntegrateAndFire):
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


@register.model("transfer_scnn", source=SOURCE)
class TransferSCNN(SpikingConvNet, in_channels=2, img_size=28, step=12, node=SCNN_NEURON):
    """Small convolutional network that learns drawings from images too; 211,060 parameters.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder   st_utils/encoder/direct.py   [T, B, 2, 28, 28]   event frames, or the image T times
        layers.0  st_utils/layer/over_time.py  [T, B, 15, 24, 24]  5 x 5 convolution
        layers.1  st_utils/node/lif.py         [T, B, 15, 24, 24]  spikes
        layers.2  st_utils/layer/over_time.py  [T, B, 15, 12, 12]  2 x 2 average pooling
        layers.3  st_utils/layer/over_time.py  [T, B, 40, 8, 8]    5 x 5 convolution
        layers.4  st_utils/node/lif.py         [T, B, 40, 8, 8]    spikes
        layers.5  st_utils/layer/over_time.py  [T, B, 40, 4, 4]    2 x 2 average pooling
        layers.6  st_utils/layer/over_time.py  [T, B, 300, 1, 1]   linear
        layers.7  st_utils/node/lif.py         [T, B, 300, 1, 1]   spikes
        head      torch.nn                     [T, B, 10]          linear
        model     zoo/transfer.py              [B, 10]             the mean over T

    It is Transfer-for-DVS's SCNN, for N-Omniglot. Neither convolutions nor linear layers have a norm, and the
    convolutions no bias. With transfer=true one head classifies both domains, and they share the membrane potential of
    the last neurons after their reset, `[T, B, 300]`.

    Args:
        channels: of the two convolutions, and the number of the last neurons.
    """

    shares_head = True

    def __init__(self, *, channels: tuple[int, int, int] = (15, 40, 300), **arguments: Unpack[ConvNetArguments]):
        if min(channels) < 1:
            raise UserError(f"transfer_scnn: channels must be at least 1, not {list(channels)}")
        self.channels = channels
        super().__init__(**arguments)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Linear):
                nn.init.uniform_(module.weight, -0.1, 0.1)

    def make_layers(self, in_channels: int, size: tuple[int, int], step: int, node: str) -> tuple[nn.Sequential, int]:
        layers: list[nn.Module] = []
        *convolutions, hidden = self.channels
        for before, after in zip((in_channels, *convolutions), convolutions, strict=False):
            size = tuple((side - 4) // 2 for side in size)
            layers += [OverTime(Conv2d(before, after, 5, bias=False)), build_node(node, step, after)]
            layers.append(OverTime(nn.AvgPool2d(2)))
        if min(size) < 1:
            raise UserError("transfer_scnn needs images of 16 x 16 at least")
        values = convolutions[-1] * size[0] * size[1]
        to_map = nn.Unflatten(1, (hidden, 1, 1))  # the shape that every neuron takes
        layers += [OverTime(nn.Flatten(), nn.Linear(values, hidden), to_map), build_node(node, step, hidden)]
        return nn.Sequential(*layers), hidden

    def shared_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        *before, node = self.layers
        currents = nn.Sequential(*before)(self.encoder(x))
        return node(currents).flatten(2), node.potential(currents).flatten(2)


@register.model("transfer_resnet18", source=SOURCE)
class TransferResNet18(SpikingResNet, in_channels=2, img_size=48, step=6, style="norm", node=NEURON):
    """Pre-activation ResNet-18 that learns events from images too; 11,187,886 parameters, two heads, 20 classes.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder            st_utils/encoder/direct.py   [T, B, 2, 48, 48]    event frames, or the image T times
        layers.stem        st_utils/layer/over_time.py  [T, B, 64, 48, 48]   3 x 3 convolution
        layers.stage0.0-1  st_utils/backbone/resnet.py  [T, B, 64, 48, 48]   x + (norm, node, convolution) twice
        layers.stage1.0-1  st_utils/backbone/resnet.py  [T, B, 128, 24, 24]  the first block has stride 2
        layers.stage2.0-1  st_utils/backbone/resnet.py  [T, B, 256, 12, 12]  the first block has stride 2
        layers.stage3.0-1  st_utils/backbone/resnet.py  [T, B, 512, 6, 6]    the first block has stride 2
        layers.tail        st_utils/layer/over_time.py  [T, B, 512, 6, 6]    norm: real values, no neuron
        layers.mean        st_utils/layer/over_time.py  [T, B, 512, 1, 1]    the mean over H, W
        head               torch.nn                     [T, B, 10]           linear
        model              zoo/transfer.py              [B, 10]              the mean over T

    Real values run along the shortcuts and into the head. With transfer=true (see SpikingConvNet) the two domains share
    what the heads see, `[T, B, 8 width]`. The authors' code runs step by step, so that batch norm sees one step at a
    time: legacy_step_norm=true.
    """

    published = PUBLISHED_RESNET18

    def __init__(self, **arguments: Unpack[ResNetArguments]):
        super().__init__(**arguments)
        init_kaiming_normal(self)
