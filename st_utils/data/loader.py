"""Batches, the same for the same (seed, epoch): on any number of workers, and after a resume, bit for bit."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from st_utils.data.augment import Augment, Normalise, eval_transform, train_transform
from st_utils.data.base import DataSet, first_per_class
from st_utils.errors import UserError

KEEP_BYTES = 2**30  # a split whose pixels never change is transformed once if it fits here

Request = tuple[tuple[int, int, int], np.ndarray]  # (seed, epoch, batch number from 1), indices
Batch = tuple[torch.Tensor, torch.Tensor]


@contextmanager
def seeded(entropy: tuple[int, ...]) -> Iterator[None]:
    """Inside, Python's, numpy's and torch's CPU generators start from `entropy`; then they go back."""
    saved = random.getstate(), np.random.get_state(), torch.get_rng_state()
    python, numpy, pytorch = np.random.SeedSequence(entropy).generate_state(3).tolist()
    random.seed(python)
    np.random.seed(numpy)
    torch.default_generator.manual_seed(pytorch)  # torch.manual_seed would also reseed the GPU's, for good
    try:
        yield
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])
        torch.set_rng_state(saved[2])


class BatchSource(Dataset):
    """Serves whole batches of `samples`, a map-style data set of (image, int).

    transform: one image -> an array or tensor; may be random, with the global generators
    finish: their stack [B, ...] -> the inputs (normalising, erasing); may be random too
    keep: transform every image once, at the first batch, and keep the results in memory
    """

    def __init__(self, samples: Dataset, transform: Callable, finish: Callable, keep: bool = False):
        self.samples, self.transform, self.finish, self.keep = samples, transform, finish, keep
        self._kept: Batch | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, request: Request) -> Batch | UserError:
        """The batch asked for. An error is returned, for a worker would wrap a raised one in a traceback."""
        entropy, indices = request
        try:
            with seeded(entropy):
                inputs, labels = self._select(torch.from_numpy(indices)) if self.keep else self._read(indices)
                return self.finish(inputs), labels
        except UserError as error:
            return error

    def _select(self, indices: torch.Tensor) -> Batch:
        if self._kept is None:
            self._kept = self._read(range(len(self.samples)))
        return self._kept[0][indices], self._kept[1][indices]

    def _read(self, indices: Any) -> Batch:
        inputs, labels = None, torch.empty(len(indices), dtype=torch.int64)
        for place, index in enumerate(indices):
            image, labels[place] = self.samples[int(index)]
            value = torch.as_tensor(self.transform(image))
            if inputs is None:
                inputs = torch.empty((len(indices), *value.shape), dtype=value.dtype)
            inputs[place] = value
        return inputs, labels


@dataclass
class EpochOrder:
    """The requests of one epoch of `count` samples; shuffled, the order is a function of (seed, epoch)."""

    count: int
    batch_size: int
    seed: int
    shuffle: bool
    drop_last: bool
    epoch: int = 0

    def __len__(self) -> int:
        return self.count // self.batch_size if self.drop_last else -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[Request]:
        epoch, order = self.epoch, np.arange(self.count)
        if self.shuffle:
            state = np.random.SeedSequence((self.seed, epoch, 0)).generate_state(1).item()
            order = torch.randperm(self.count, generator=torch.Generator().manual_seed(state)).numpy()
        for number in range(len(self)):
            start = number * self.batch_size
            yield (self.seed, epoch, number + 1), order[start : start + self.batch_size]


class EpochLoader:
    """Iterates over one epoch of (inputs [B, ...], labels int64 [B]); `set_epoch(e)` chooses which.

    The batches of epoch e are a function of (seed, e) and the source alone: not of the workers, nor of the
    global generators, which are left as they were found. `len` is the number of batches.
    """

    def __init__(
        self,
        source: BatchSource,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        drop_last: bool = False,
        workers: int = 0,
        pin_memory: bool = False,
    ):
        self.source = source
        self._order = EpochOrder(len(source), batch_size, seed, shuffle, drop_last)
        if source.keep:
            workers = 0  # indexing memory is faster than passing batches between processes
        self._new_loader = partial(
            DataLoader,
            source,
            sampler=self._order,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # or each epoch would draw a number from the global one
        )
        self._loader = self._new_loader()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next `iter` gives."""
        self._order.epoch = epoch

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            if isinstance(batch, UserError):
                self._loader = self._new_loader()  # ends the workers now; held by a traceback they'd linger
                raise batch
            yield tuple(batch)


def build_loaders(
    data: DataSet,
    img_size: int | None = None,
    batch_size: int = 64,
    workers: int = 0,
    augment: Augment | None = None,
    seed: int = 0,
    crop_pct: float | None = None,
    train_images: int | None = None,
    test_images: int | None = None,
    pin_memory: bool = False,
) -> tuple[EpochLoader, EpochLoader]:
    """The loaders of a data set: batches (images float32 [B, C, img_size, img_size], labels int64 [B]).

    The training one shuffles, augments, and drops the last, incomplete batch; the test one does none of this.
    img_size and crop_pct are the data set's own when not given. `train_images` and `test_images` keep only
    that many images of a split, the first of every class in turn. Raises UserError for what can't work.
    """
    augment = augment or Augment()
    side = data.img_size if img_size is None else img_size
    crop = data.crop_pct if crop_pct is None else crop_pct
    train = data.train if train_images is None else first_per_class(data.train, train_images, "train_images")
    test = data.test if test_images is None else first_per_class(data.test, test_images, "test_images")
    _check(side, batch_size, workers, seed, crop, len(train))

    def fits(split: Dataset) -> bool:
        return len(split) * data.in_channels * side * side <= KEEP_BYTES

    train_source = BatchSource(
        train,
        train_transform(augment, side, data.mean),
        Normalise(data.mean, data.std, augment),
        keep=not augment.random_pixels and fits(train),
    )
    test_source = BatchSource(
        test,
        eval_transform(side, crop, augment.interpolation),
        Normalise(data.mean, data.std),
        keep=fits(test),
    )
    common = {"batch_size": batch_size, "seed": seed, "workers": workers, "pin_memory": pin_memory}
    train_loader = EpochLoader(train_source, shuffle=True, drop_last=True, **common)
    return train_loader, EpochLoader(test_source, **common)


def _check(side: int, batch_size: int, workers: int, seed: int, crop_pct: float, train_count: int) -> None:
    if side < 1:
        raise UserError(f"img_size is {side}: give a side of at least 1 pixel")
    if not 1 <= batch_size <= train_count:
        raise UserError(f"batch_size is {batch_size}: choose 1 to {train_count}, the training images")
    if workers < 0:
        raise UserError(f"workers is {workers}: give 0 (load in the main process) or more")
    if seed < 0:
        raise UserError(f"seed is {seed}: give 0 or more")
    if not 0 < crop_pct <= 1:
        raise UserError(f"crop_pct is {crop_pct}: give the part of the side to keep, above 0 and up to 1")
