"""Convolution in plain torch: the definition of the kernels of this folder.

    convolve(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3), None, *Geometry(padding=(1, 1)))[0, 0, 1, 1]      # 9

`convolve` of `op.py` has the same parameters in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor


class Geometry(NamedTuple):
    """The numbers of a convolution: of rows and of columns, and of groups of channels."""

    stride: Sequence[int] = (1, 1)
    padding: Sequence[int] = (0, 0)
    dilation: Sequence[int] = (1, 1)
    groups: int = 1


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """x `[N, C, H, W]` with the weight `[C', C / groups, rows, columns]` -> `[N, C', H', W']`.

    out[n, o, i, j] = bias[o] + sum over c, a, b of
        weight[o, c, a, b] x[n, c, i stride + a dilation - padding, j stride + b dilation - padding]
    """
    return F.conv2d(x, weight, bias, tuple(stride), tuple(padding), tuple(dilation), groups)
