"""DTA-SNN: MS-ResNets with dual temporal-channel attention behind the stem.

    from zoo import create_model

    create_model("dta_snn18(width=8, attention=none)").layers[0].conv.out_channels  # 8

Authors' weights and arguments: zoo/authors/dta_snn.py.
"""

from __future__ import annotations

from registry import register
from st_utils.backbone.resnet import SpikingResNet
from st_utils.papers import DTA_SNN
from zoo.authors.dta_snn import PUBLISHED, PUBLISHED_34

# Their neuron decays by half and adds the input whole, fires above the threshold, and lets gradients through the reset.
NEURON = "lif(decay_input=false, detach_reset=false, surrogate=triangle(strict=true))"


@register.model("dta_snn18", aliases=("dta", "dta_snn", "dta_snn_18"), source=DTA_SNN)
class DTASNN18(
    SpikingResNet,
    step=6,
    depths=(0, 3, 3, 2),
    strides=(1, 1, 2, 2),
    style="membrane",
    attention="dta(project=false)",
    node=NEURON,
):
    """MS-ResNet-18 behind dual temporal-channel attention, for CIFAR-10; 12,993,336 parameters at 6 steps.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder            st_utils/encoder/direct.py   [T, B, 3, 32, 32]    the image at every step
        layers.stem        st_utils/layer/conv_norm.py  [T, B, 64, 32, 32]   3 x 3 convolution, norm
        layers.attention   st_utils/attention/dta.py    [T, B, 64, 32, 32]   gates the spikes: step, channel
        layers.stage1.0-2  st_utils/backbone/resnet.py  [T, B, 128, 32, 32]  x + (node, convolution, norm) twice
        layers.stage2.0-2  st_utils/backbone/resnet.py  [T, B, 256, 16, 16]  the first block has stride 2
        layers.stage3.0-1  st_utils/backbone/resnet.py  [T, B, 512, 8, 8]    the first block has stride 2
        layers.tail        st_utils/node/lif.py         [T, B, 512, 8, 8]    spikes
        layers.mean        st_utils/layer/over_time.py  [T, B, 512, 1, 1]    the mean over H, W
        head               torch.nn                     [T, B, 10]           linear
        model              zoo/dta_snn.py               [B, 10]              the mean over T

    `attention=none` is the authors' form without DTA: no neuron stands between stem and blocks. Any other attention can
    take its place. Events: in_channels=2, step=10. Computes what the authors' code computes; theirs returns the logits
    as [B, T, classes] and leaves the mean to the caller.
    """

    published = PUBLISHED


@register.model("dta_snn34", aliases=("dta_snn_34",), source=DTA_SNN)
class DTASNN34(DTASNN18, img_size=224, depths=(3, 4, 6, 3), stem="conv7"):
    """MS-ResNet-34 behind dual temporal-channel attention, for ImageNet; 22,288,918 parameters at 1,000 classes.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder            st_utils/encoder/direct.py   [T, B, 3, 224, 224]    the image at every step
        layers.stem        st_utils/layer/conv_norm.py  [T, B, 64, 112, 112]   7 x 7 convolution of stride 2, norm
        layers.attention   st_utils/attention/dta.py    [T, B, 64, 112, 112]   gates the spikes: step, channel
        layers.stage0.0-2  st_utils/backbone/resnet.py  [T, B, 64, 112, 112]   x + (node, convolution, norm) twice
        layers.stage1.0-3  st_utils/backbone/resnet.py  [T, B, 128, 112, 112]
        layers.stage2.0-5  st_utils/backbone/resnet.py  [T, B, 256, 56, 56]    the first block has stride 2
        layers.stage3.0-2  st_utils/backbone/resnet.py  [T, B, 512, 28, 28]    the first block has stride 2
        layers.tail        st_utils/node/lif.py         [T, B, 512, 28, 28]    spikes
        layers.mean        st_utils/layer/over_time.py  [T, B, 512, 1, 1]      the mean over H, W
        head               torch.nn                     [T, B, 10]             linear
        model              zoo/dta_snn.py               [B, 10]                the mean over T

    See `dta_snn18` for its arguments. The forward of the authors' class fails until an attribute `GAC` is set; this is
    what it then computes.
    """

    published = PUBLISHED_34
