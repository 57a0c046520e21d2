"""What a kernel must know of a batch norm.

    Norm(weight=None, bias=None, mean=None, var=None, eps=1e-5)      # no affine, with the batch's own statistics

Its fields are arguments of the operator `zoo::norm_and_fire`, in this order.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Norm(NamedTuple):
    """y = (x - mean) / sqrt(var + eps) weight + bias; tensors are float32 `[C]`.

    Attributes:
        weight: None is 1.
        bias: None is 0.
        mean, var: None are the batch's own; var is the population's (biased).
    """

    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor | None
    var: Tensor | None
    eps: float
