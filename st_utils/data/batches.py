"""The batches of an epoch: which samples each one has, and how it is read, augmented and normalised.

    source = BatchSource(data.train, transform=eval_transform(32), finish=Normalise(data.mean, data.std))
    for request in EpochSampler(len(source), batch_size=64, seed=0, shuffle=True, drop_last=True):
        images, labels = source[request]     # float32 [64, C, 32, 32], int64 [64]

A sample's random numbers are a function of (seed, epoch, its index) alone, so that neither the batch nor the process
that reads it changes how it is augmented.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from registry import plugin_failure
from st_utils.batch_share import Share
from st_utils.data.seeding import reseed, seeded
from st_utils.errors import UserError

Batch = tuple[torch.Tensor, torch.Tensor]

# What comes after (seed, epoch) in the entropy of each kind of draw, so that no two kinds share their numbers.
SHUFFLE, AUGMENT, ERASE = 0, 1, 2


class BatchRequest(NamedTuple):
    """Which samples a batch has: `entropy` is (seed, epoch), `indices` the samples' indices, int64 `[B]`."""

    entropy: tuple[int, int]
    indices: np.ndarray


class BatchSource(Dataset):
    """Reads whole batches of `samples`, a map-style data set of (image, int).

    Args:
        samples: `samples[i]` is (PIL image or array, class number).
        transform: changes one image into an array or tensor. It may draw from the global generators, unless its
            attribute `random` is false.
        finish: maps the stacked results `[B, ...]` to the inputs; it draws no random numbers.
        keep: transform every image once, at the first batch, and keep the results in memory.
        erase: changes one finished image in place; it may draw from the global generators.
    """

    def __init__(
        self,
        samples: Dataset,
        transform: Callable,
        finish: Callable,
        keep: bool = False,
        erase: Callable | None = None,
    ):
        self.samples, self.transform, self.finish, self.keep, self.erase = samples, transform, finish, keep, erase
        self._kept: Batch | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, request: BatchRequest) -> Batch | UserError:
        """The requested batch, or the UserError that reading it met.

        The error is returned because a worker process wraps a raised one in its traceback.
        """
        entropy, indices = request
        if not len(indices):  # this process has no sample of a last batch that has fewer samples than processes
            return torch.empty(0), torch.empty(0, dtype=torch.int64)
        try:
            with seeded(entropy):
                inputs, labels = self._select(indices, entropy) if self.keep else self._read(indices, entropy)
                inputs = self.finish(inputs)
                if self.erase:
                    for image, index in zip(inputs, indices, strict=True):
                        reseed((*entropy, ERASE, int(index)))
                        self.erase(image)
                return inputs, labels
        except UserError as error:
            return error
        except Exception as error:
            if (told := plugin_failure(error)) is None:
                raise
            return UserError(told)

    def _select(self, indices: np.ndarray, entropy: tuple[int, int]) -> Batch:
        """The batch from memory, where the first call puts all samples."""
        if self._kept is None:
            self._kept = self._read(range(len(self.samples)), entropy)
        chosen = torch.from_numpy(indices)
        return self._kept[0][chosen], self._kept[1][chosen]

    def _read(self, indices: Sequence[int] | np.ndarray, entropy: tuple[int, int]) -> Batch:
        """The transformed samples, stacked into one tensor that is allocated once, and their labels."""
        inputs, labels = None, torch.empty(len(indices), dtype=torch.int64)
        is_random = getattr(self.transform, "random", True)
        for place, index in enumerate(indices):
            if is_random:
                reseed((*entropy, AUGMENT, int(index)))
            image, labels[place] = self.samples[int(index)]
            value = torch.as_tensor(self.transform(image))
            if inputs is None:
                inputs = torch.empty((len(indices), *value.shape), dtype=value.dtype)
            inputs[place] = value
        return inputs, labels


@dataclass
class EpochSampler:
    """Yields the `BatchRequest`s of one epoch of `count` samples.

    With `shuffle`, the order is a function of (seed, epoch); without, it is 0 to count - 1. `batch_size` counts the
    samples of all processes; a request has those of this process's `share`. The first `start` batches are skipped.
    """

    count: int
    batch_size: int
    seed: int
    shuffle: bool
    drop_last: bool
    share: Share = field(default_factory=Share)
    epoch: int = 0
    start: int = 0

    def __len__(self) -> int:
        """The number of batches of a whole epoch."""
        return self.count // self.batch_size if self.drop_last else -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[BatchRequest]:
        epoch, order = self.epoch, np.arange(self.count)
        if self.shuffle:
            state = np.random.SeedSequence((self.seed, epoch, SHUFFLE)).generate_state(1).item()
            order = torch.randperm(self.count, generator=torch.Generator().manual_seed(state)).numpy()
        for number in range(self.start, len(self)):
            batch = order[number * self.batch_size :][: self.batch_size]
            yield BatchRequest((self.seed, epoch), batch[np.concatenate(self.share.positions(len(batch)))])
