"""Random numbers that belong to a batch's samples: the same ones however the batch is shared out.

A step's batch may be shared among processes and micro-batches, whose generators all begin the step alike. What is
drawn here is then drawn for the whole batch, and each share takes what belongs to its samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_share: tuple[Tensor, int] | None = None


@contextmanager
def share_of_batch(positions: Tensor, count: int) -> Iterator[None]:
    """Inside, models see the samples at these positions (on the models' device) of a batch of `count`."""
    global _share
    before, _share = _share, (positions, count) if len(positions) < count else None
    try:
        yield
    finally:
        _share = before


def rand(shape: tuple[int, ...], axis: int, device: torch.device) -> Tensor:
    """Uniform numbers of this shape, whose `axis` is the samples'."""
    if _share is None:
        return torch.rand(shape, device=device)
    positions, count = _share
    return torch.rand((*shape[:axis], count, *shape[axis + 1 :]), device=device).index_select(axis, positions)
