"""Max pooling over `[T, B, C, H, W]`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from st_utils.layer.over_time import over_time


def halve(x: Tensor) -> Tensor:
    """Max-pool `[T, B, C, H, W]` to half the rows and columns: kernel 3, stride 2, padding 1."""
    return over_time(lambda y: F.max_pool2d(y, 3, stride=2, padding=1), x)


def max_3x3(x: Tensor) -> Tensor:
    """Max over the 3 x 3 neighbourhood in the last two axes of a 5-D tensor; the shape stays."""
    return over_time(lambda y: F.max_pool2d(y, 3, stride=1, padding=1), x)
