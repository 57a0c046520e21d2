"""Max-pooling over `[T, B, C, H, W]`.

Example:
    import torch
    from st_utils.layer.pool import halve

    halve(torch.rand(4, 2, 64, 7, 8)).shape  # -> torch.Size([4, 2, 64, 4, 4])
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from st_utils.layer.over_time import over_time


def halve(x: Tensor) -> Tensor:
    """Max-pool to half the rows and columns, rounded up: kernel 3, stride 2, padding 1."""
    return over_time(lambda y: F.max_pool2d(y, 3, stride=2, padding=1), x)


def max_3x3(x: Tensor) -> Tensor:
    """Max-pool over 3 x 3 neighbours in the last two axes of a 5-D tensor: stride 1, padding 1, the shape stays."""
    return over_time(lambda y: F.max_pool2d(y, 3, stride=1, padding=1), x)
