"""SEW-ResNet: residual networks whose shortcuts connect spikes element by element.

    from zoo import create_model

    create_model("sew_resnet18(stem=conv3, connect=iand)").spec  # 'sew_resnet18(connect="iand", stem="conv3")'

Fang et al. 2021, arXiv:2102.04159. Authors' weights and arguments: zoo/authors/sew_resnet.py.
"""

from __future__ import annotations

from typing import Unpack

from registry import register
from st_utils.backbone.arguments import ResNetArguments
from st_utils.backbone.resnet import SpikingResNet
from st_utils.layer import init_kaiming_normal
from zoo.authors.sew_resnet import PUBLISHED


@register.model(
    "sew_resnet18", source="Fang et al. 2021, arXiv:2102.04159; SpikingJelly's sew_resnet18, fangwei123456/spikingjelly"
)
class SEWResNet18(SpikingResNet, img_size=224, stem="conv7_pool"):
    """ResNet-18 whose shortcuts add spikes. Default: ImageNet's form, 11,689,512 parameters at 1,000 classes.

    The whole network at its defaults, in the order in which it runs (T time steps, B samples):

        encoder            st_utils/encoder/direct.py   [T, B, 3, 224, 224]   the image at every step
        layers.stem        st_utils/layer/conv_norm.py  [T, B, 64, 112, 112]  7 x 7 convolution of stride 2, norm, node
        layers.pool        st_utils/layer/over_time.py  [T, B, 64, 56, 56]    3 x 3 max-pooling of stride 2
        layers.stage0.0-1  st_utils/backbone/resnet.py  [T, B, 64, 56, 56]    x + (convolution, norm, node) twice
        layers.stage1.0-1  st_utils/backbone/resnet.py  [T, B, 128, 28, 28]   the first block has stride 2
        layers.stage2.0-1  st_utils/backbone/resnet.py  [T, B, 256, 14, 14]   the first block has stride 2
        layers.stage3.0-1  st_utils/backbone/resnet.py  [T, B, 512, 7, 7]     the first block has stride 2
        layers.mean        st_utils/layer/over_time.py  [T, B, 512, 1, 1]     the mean over H, W
        head               torch.nn                     [T, B, 10]            linear
        model              zoo/sew_resnet.py            [B, 10]               the mean over T

    `stem="conv3"` is the form for small images. With connect="add", the paper's best, integers run along the shortcuts;
    with "and" and "iand", spikes. The network is SpikingJelly's `sew_resnet18`, whose weights `load_published` takes
    (`cnf` is our `connect`); there the caller chooses the neuron, here it is `lif` unless the spec says otherwise.
    """

    published = PUBLISHED

    def __init__(self, **arguments: Unpack[ResNetArguments]):
        super().__init__(**arguments)
        init_kaiming_normal(self)
