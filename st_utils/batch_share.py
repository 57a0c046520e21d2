"""Random numbers that belong to a batch's samples: the same ones however the batch is shared out.

A step's batch may be shared among processes and micro-batches, whose generators all begin the step alike. What is
drawn here is then drawn for the whole batch, and each share takes what belongs to its samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Share:
    """What one of `world` processes takes of every batch: `parts` micro-batches, of `world * parts` that there are.

    The first and the last sample of a batch go to the same micro-batch, the second and the last but one, and so on:
    these are the pairs that timm's Mixup mixes.
    """

    rank: int = 0
    world: int = 1
    parts: int = 1

    def positions(self, count: int) -> list[np.ndarray]:
        """The places in a batch of `count` samples of each of this process's micro-batches."""
        paired = np.empty(count, dtype=np.int64)
        paired[0::2] = np.arange((count + 1) // 2)
        paired[1::2] = np.arange(count - 1, (count + 1) // 2 - 1, -1)
        shares = np.array_split(paired, self.world * self.parts)
        return [np.sort(share) for share in shares[self.rank * self.parts : (self.rank + 1) * self.parts]]


_share: tuple[Tensor, int] | None = None


@contextmanager
def micro_batch(positions: Tensor, count: int) -> Iterator[None]:
    """Inside, models see the samples at these positions (on the models' device) of a batch of `count`."""
    global _share
    before, _share = _share, (positions, count) if len(positions) < count else None
    try:
        yield
    finally:
        _share = before


def rand_per_image(shape: tuple[int, ...], axis: int, device: torch.device) -> Tensor:
    """Uniform numbers of this shape, whose `axis` is the samples'."""
    if _share is None:
        return torch.rand(shape, device=device)
    positions, count = _share
    return torch.rand((*shape[:axis], count, *shape[axis + 1 :]), device=device).index_select(axis, positions)
