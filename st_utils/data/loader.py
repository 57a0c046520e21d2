"""Batches, the same for the same (seed, epoch): on any number of workers and processes, and after a resume.

A sample's random numbers are a function of (seed, epoch, its index) alone, whatever batch and process it is in.
"""

import logging
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from st_utils.batch_share import Share
from st_utils.data.base import DataSet, FrameData, first_per_class
from st_utils.data.events.augment import FrameNormalise, FrameTransform
from st_utils.data.images.augment import Augment, Normalise, erasing, eval_transform, train_transform
from st_utils.errors import ProcessError, UserError

logger = logging.getLogger(__name__)

KEEP_BYTES = 2**30  # a split whose pixels never change is transformed once if it fits here

Request = tuple[tuple[int, int], np.ndarray]  # (seed, epoch), indices
Batch = tuple[torch.Tensor, torch.Tensor]


@contextmanager
def seeded(entropy: tuple[int, ...]) -> Iterator[None]:
    """Inside, Python's, numpy's and torch's CPU generators start from `entropy`; then they go back."""
    saved = random.getstate(), np.random.get_state(), torch.get_rng_state()
    reseed(entropy)
    try:
        yield
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])
        torch.set_rng_state(saved[2])


def reseed(entropy: tuple[int, ...], seed_torch: Callable[[int], object] = torch.default_generator.manual_seed) -> None:
    """Start Python's, numpy's and torch's generators from `entropy`: the CPU's, unless seed_torch reseeds more."""
    python, numpy, pytorch = np.random.SeedSequence(entropy).generate_state(3).tolist()
    random.seed(python)
    np.random.seed(numpy)
    seed_torch(pytorch)  # torch.manual_seed would reseed the GPU's too, for good


class BatchSource(Dataset):
    """Serves whole batches of `samples`, a map-style data set of (image, int).

    transform: one image -> an array or tensor; may be random, with the global generators, unless its `random` is false
    finish: their stack [B, ...] -> the inputs; not random
    keep: transform every image once, at the first batch, and keep the results in memory
    erase: changes one finished image in place; may be random, with the global generators
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

    def __getitem__(self, request: Request) -> Batch | UserError:
        """The batch asked for. An error is returned, for a worker would wrap a raised one in a traceback."""
        entropy, indices = request
        if not len(indices):  # a process's share of a last batch smaller than the processes are many
            return torch.empty(0), torch.empty(0, dtype=torch.int64)
        try:
            with seeded(entropy):
                inputs, labels = self._select(indices, entropy) if self.keep else self._read(indices, entropy)
                inputs = self.finish(inputs)
                if self.erase:
                    for image, index in zip(inputs, indices, strict=True):
                        reseed((*entropy, 2, int(index)))
                        self.erase(image)
                return inputs, labels
        except UserError as error:
            return error

    def _select(self, indices: np.ndarray, entropy: tuple[int, int]) -> Batch:
        if self._kept is None:
            self._kept = self._read(range(len(self.samples)), entropy)
        places = torch.from_numpy(indices)
        return self._kept[0][places], self._kept[1][places]

    def _read(self, indices: Any, entropy: tuple[int, int]) -> Batch:
        inputs, labels = None, torch.empty(len(indices), dtype=torch.int64)
        draws = getattr(self.transform, "random", True)
        for place, index in enumerate(indices):
            if draws:
                reseed((*entropy, 1, int(index)))
            image, labels[place] = self.samples[int(index)]
            value = torch.as_tensor(self.transform(image))
            if inputs is None:
                inputs = torch.empty((len(indices), *value.shape), dtype=value.dtype)
            inputs[place] = value
        return inputs, labels


@dataclass
class EpochOrder:
    """The requests of one epoch of `count` samples; shuffled, the order is a function of (seed, epoch).

    Of every batch of batch_size samples, this process's share is asked for; `start` batches are left out.
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
        return self.count // self.batch_size if self.drop_last else -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[Request]:
        epoch, order = self.epoch, np.arange(self.count)
        if self.shuffle:
            state = np.random.SeedSequence((self.seed, epoch, 0)).generate_state(1).item()
            order = torch.randperm(self.count, generator=torch.Generator().manual_seed(state)).numpy()
        for number in range(self.start, len(self)):
            batch = order[number * self.batch_size :][: self.batch_size]
            yield (self.seed, epoch), batch[np.concatenate(self.share.positions(len(batch)))]


class EpochLoader:
    """Iterates over one epoch of (inputs [B, ...], labels int64 [B]); `set_epoch(e)` chooses which.

    The batches of epoch e are a function of (seed, e) and the source alone: not of the workers, nor of the
    global generators, which are left as they were found. `len` is the number of batches. batch_size counts the
    samples of all processes; what comes is this one's share, its micro-batches one after the other.
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
        share: Share | None = None,
    ):
        self.source = source
        self._order = EpochOrder(len(source), batch_size, seed, shuffle, drop_last, share or Share())
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

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch that the next `iter` gives, from its batch number `start` on, counted from 0."""
        self._order.epoch, self._order.start = epoch, start

    def __len__(self) -> int:
        return len(self._order)

    def spread(self, count: int) -> torch.Tensor:
        """The inputs of `count` samples (all, if they are fewer) spread evenly over the source.

        They are the same whatever the batch size, the share and the number of processes. Raises UserError.
        """
        total = len(self.source)
        indices = np.arange(min(count, total)) * total // min(count, total)
        found = self._await(lambda: self.source[(self._order.seed, 0), indices])
        return found[0]

    def __iter__(self) -> Iterator[Batch]:
        batches = self._await(lambda: iter(self._loader))  # workers of an epoch before are waited for here, too
        if self._loader.num_workers and threading.current_thread() is threading.main_thread():
            # torch would raise a worker's death wherever the main thread is, in the middle of a step too; without
            # its handler the death is found where the next batch is awaited, within five seconds
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        while (batch := self._await(lambda: next(batches, None))) is not None:
            yield tuple(batch)

    def _await(self, what: Callable[[], Any]) -> Any:
        """What the loader's processes are asked for. Raises UserError: theirs, or that one of them died."""
        try:
            found = what()
        except (RuntimeError, EOFError, ConnectionError, FileNotFoundError) as error:
            # the latter three where a process dies while a tensor's memory is handed over
            other = isinstance(error, RuntimeError) and "DataLoader worker" not in str(error)
            if other or not self._loader.num_workers:
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            found = ProcessError(
                f"a data-loading process died (killed, or out of memory: try fewer --workers). torch says: {reason}"
            )
        if isinstance(found, UserError):
            self._loader = self._new_loader()  # ends the workers now; held by a traceback they'd linger
            raise found
        return found


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
    share: Share | None = None,
    event_augment: str | None = None,
) -> tuple[EpochLoader, EpochLoader]:
    """The loaders of a data set: batches (images float32 [B, C, img_size, img_size], labels int64 [B]).

    Of a `FrameData` the inputs are its frames, [B, T, C, H, W], which `event_augment` changes in training.

    The training one shuffles, augments, and drops the last, incomplete batch; the test one does none of this.
    img_size and crop_pct are the data set's own when not given. `train_images` and `test_images` keep only
    that many images of a split, the first of every class in turn. `share` is what this process takes of each
    batch (in testing, as one). Raises UserError for what can't work.
    """
    augment = augment or Augment()
    side = data.img_size if img_size is None else img_size
    crop = data.crop_pct if crop_pct is None else crop_pct
    train = data.train if train_images is None else first_per_class(data.train, train_images, "train_images")
    test = data.test if test_images is None else first_per_class(data.test, test_images, "test_images")
    _check(side, batch_size, workers, seed, crop, len(train))
    if isinstance(data, FrameData):
        train_source, test_source = _frame_sources(data, train, test, side, augment, event_augment)
    else:
        train_source, test_source = _image_sources(data, train, test, side, augment, crop)
    common = {"batch_size": batch_size, "seed": seed, "workers": workers, "pin_memory": pin_memory}
    share = share or Share()
    train_loader = EpochLoader(train_source, shuffle=True, drop_last=True, share=share, **common)
    return train_loader, EpochLoader(test_source, share=replace(share, parts=1), **common)


def _image_sources(
    data: DataSet, train: Dataset, test: Dataset, side: int, augment: Augment, crop: float
) -> tuple[BatchSource, BatchSource]:
    def fits(split: Dataset) -> bool:
        return len(split) * data.in_channels * side * side <= KEEP_BYTES

    train_source = BatchSource(
        train,
        train_transform(augment, side, data.mean),
        Normalise(data.mean, data.std),
        keep=not augment.random_pixels and fits(train),
        erase=erasing(augment),
    )
    test_source = BatchSource(
        test,
        eval_transform(side, crop, augment.interpolation),
        Normalise(data.mean, data.std),
        keep=fits(test),
    )
    return train_source, test_source


def _frame_sources(
    data: FrameData, train: Dataset, test: Dataset, side: Any, augment: Augment, event_augment: str | None
) -> tuple[BatchSource, BatchSource]:
    if side != data.img_size:
        raise UserError(f"{data.name} has frames of {data.img_size}, not of {side}: give --event-size, no --img-size")
    if event_augment and isinstance(data.img_size, tuple):
        raise UserError(f"event_augment={event_augment!r} is for event frames: {data.name} has sequences, leave it out")
    if augment.random_pixels or augment.re_prob:
        logger.warning("the augmentation of images is ignored: %s takes --event-augment", data.name)
    transform = FrameTransform(event_augment)
    finish = FrameNormalise(data.scale, data.mean, data.std)

    def fits(split: Dataset) -> bool:
        return len(split) * split[0][0].nbytes <= KEEP_BYTES

    train_source = BatchSource(train, transform, finish, keep=not transform.random and fits(train))
    return train_source, BatchSource(test, FrameTransform(), finish, keep=fits(test))


def _check(
    side: int | tuple[int, int], batch_size: int, workers: int, seed: int, crop_pct: float, train_count: int
) -> None:
    if not isinstance(side, tuple) and side < 1:
        raise UserError(f"img_size is {side}: give a side of at least 1 pixel")
    if not 1 <= batch_size <= train_count:
        raise UserError(f"batch_size is {batch_size}: choose 1 to {train_count}, the training images")
    if workers < 0:
        raise UserError(f"workers is {workers}: give 0 (load in the main process) or more")
    if seed < 0:
        raise UserError(f"seed is {seed}: give 0 or more")
    if not 0 < crop_pct <= 1:
        raise UserError(f"crop_pct is {crop_pct}: give the part of the side to keep, above 0 and up to 1")
