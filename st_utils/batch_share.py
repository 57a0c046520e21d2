"""Random numbers per image that do not depend on how a batch is split over processes and micro-batches.

Example:
    import torch
    from st_utils.batch_share import micro_batch, rand_per_image

    _ = torch.manual_seed(0)
    whole = rand_per_image((4, 1), axis=0, device="cpu")
    _ = torch.manual_seed(0)
    with micro_batch(torch.tensor([1, 2]), count=4):
        part = rand_per_image((2, 1), axis=0, device="cpu")
    torch.equal(part, whole[1:3])  # -> True

The processes' generators start a training step in the same state. Numbers are drawn for the whole batch everywhere, and
each micro-batch takes those of its own images: a run on two processes, or with accumulation, drops the same paths.
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
    """The share of every batch that one process trains on: `parts` of the `world * parts` micro-batches.

    Samples i and count - 1 - i go to the same micro-batch: timm's Mixup mixes these pairs.

    Attributes:
        rank: this process, from 0.
        world: number of processes.
        parts: micro-batches per process and step.
    """

    rank: int = 0
    world: int = 1
    parts: int = 1

    def positions(self, count: int) -> list[np.ndarray]:
        """For each of this process's micro-batches, the positions of its samples in a batch of `count`, sorted."""
        paired = np.empty(count, dtype=np.int64)
        paired[0::2] = np.arange((count + 1) // 2)
        paired[1::2] = np.arange(count - 1, (count + 1) // 2 - 1, -1)
        shares = np.array_split(paired, self.world * self.parts)
        return [np.sort(share) for share in shares[self.rank * self.parts : (self.rank + 1) * self.parts]]


_share: tuple[Tensor, int] | None = None


@contextmanager
def micro_batch(positions: Tensor, count: int) -> Iterator[None]:
    """Context in which models see the samples at `positions` of a batch of `count` samples.

    Args:
        positions: int64 `[n]`, on the models' device.
    """
    global _share
    before, _share = _share, (positions, count) if len(positions) < count else None
    try:
        yield
    finally:
        _share = before


def rand_per_image(shape: tuple[int, ...], axis: int, device: torch.device) -> Tensor:
    """Uniform random numbers from 0 to 1 of this shape, of which `axis` counts the samples.

    Inside `micro_batch` they are those that the whole batch would have at the samples' positions.
    """
    if _share is None:
        return torch.rand(shape, device=device)
    positions, count = _share
    return torch.rand((*shape[:axis], count, *shape[axis + 1 :]), device=device).index_select(axis, positions)
