"""Layers that parts share, over `[T, B, C, H, W]`: time steps, samples, channels, rows, columns.

Example:
    import torch
    from st_utils.layer import ConvNormNode

    layer = ConvNormNode(3, 16, node="lif", step=4, kernel=3)
    layer(torch.rand(4, 2, 3, 8, 8)).shape  # -> torch.Size([4, 2, 16, 8, 8])

Convolutions and norms see the T B images as one batch (`over_time.py`). `Conv2d` is torch's, with a faster algorithm
for inputs that are mostly zeros.
"""

from st_utils.kernels.spike_conv.conv2d import Conv2d
from st_utils.layer.block import Block, Residual, Shortcut
from st_utils.layer.conv_norm import ConvNorm, ConvNormNode, NodeConvNorm, NormNode
from st_utils.layer.drop_path import DropPath
from st_utils.layer.fold_norms import fold_norms
from st_utils.layer.init import init_kaiming_normal, init_trunc_normal
from st_utils.layer.norm_then_fire import norm_then_fire
from st_utils.layer.over_time import OverTime, over_time
from st_utils.layer.pool import halve, max_3x3

__all__ = [
    "Block",
    "Conv2d",
    "ConvNorm",
    "ConvNormNode",
    "DropPath",
    "NodeConvNorm",
    "NormNode",
    "OverTime",
    "Residual",
    "Shortcut",
    "fold_norms",
    "halve",
    "init_kaiming_normal",
    "init_trunc_normal",
    "max_3x3",
    "norm_then_fire",
    "over_time",
]  # fmt: skip
