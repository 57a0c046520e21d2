"""Convolution in plain torch: the definition of the kernels of this folder.

    convolve(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3), None)[0, 0, 1, 1]      # 9

`convolve` of `op.py` has the same parameters in the same order.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x `[N, C, H, W]` with the weight `[C', C, rows, columns]`, rows and columns odd -> `[N, C', H, W]`.

    out[n, o, i, j] = bias[o] + sum over c, a, b of weight[o, c, a, b] x[n, c, i + a - rows // 2, j + b - columns // 2]
    """
    return F.conv2d(x, weight, bias, padding=same_padding(weight))


def same_padding(weight: Tensor) -> list[int]:
    """The zeros around an image that keep its size."""
    return [weight.shape[2] // 2, weight.shape[3] // 2]
