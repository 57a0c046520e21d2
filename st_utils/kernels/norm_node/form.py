"""What a kernel must know of a batch norm."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Norm(NamedTuple):
    """A batch norm, y = (x - mean) / sqrt(var + eps) weight + bias; each float32 [C], or None.

    No weight is 1, no bias is 0; no mean and var are the batch's own. var is the population's.
    """

    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor | None
    var: Tensor | None
    eps: float
