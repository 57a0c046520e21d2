"""Loaders: batches that are the same for the same (seed, epoch), with any workers and processes and after a resume.

data = create("dataset", "digits")
train, test = build_loaders(data, img_size=32, batch_size=64, augment=Augment(hflip=0.5), seed=0)
train.set_epoch(3)
images, labels = next(iter(train))       # float32 [64, 1, 32, 32], int64 [64]
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from st_utils.batch_share import Share
from st_utils.data.base import DataSet, FrameData, first_per_class
from st_utils.data.batches import Batch, BatchRequest, BatchSource, EpochSampler
from st_utils.data.events.augment import FrameNormalise, FrameTransform
from st_utils.data.images.augment import Augment, Normalise, eval_transform, random_erasing, train_transform
from st_utils.data.pairs import PairedSource, SourceImages
from st_utils.errors import ProcessError, UserError

logger = logging.getLogger(__name__)

KEEP_BYTES = 2**30  # a split whose pixels never change is transformed once, and kept, where it takes at most this
Result = TypeVar("Result")


class EpochLoader:
    """Iterates over one epoch of (inputs `[B, ...]`, labels int64 `[B]`); `set_epoch(e)` chooses the epoch.

    The batches of epoch e are a function of (seed, e) and the source alone. The number of workers does not change
    them, and the global random generators neither change them nor are changed. `len` is the number of batches.

    Args:
        batch_size: samples of a batch, those of all processes together.
        workers: processes that read batches; 0 reads them in this one. A source that keeps its samples needs none.
        share: this process's part of each batch; its micro-batches come one after the other.
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
        self._sampler = EpochSampler(len(source), batch_size, seed, shuffle, drop_last, share or Share())
        if source.keep:
            workers = 0  # indexing memory is faster than passing batches between processes
        self._new_loader = partial(
            DataLoader,
            source,
            sampler=self._sampler,
            batch_size=None,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # the default draws a number from the global generator in each epoch
        )
        self._loader = self._new_loader()

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch of the next `iter`, and its first batch `start`, counted from 0."""
        self._sampler.epoch, self._sampler.start = epoch, start

    def __len__(self) -> int:
        return len(self._sampler)

    def evenly_spaced(self, count: int) -> Batch:
        """The inputs and labels of `count` samples, or of all if there are fewer, at even distances in the source.

        Neither the batch size nor the share changes them. Raises UserError for a sample that can't be read.
        """
        return self.samples(evenly_spaced(count, len(self.source)))

    def samples(self, indices: np.ndarray) -> Batch:
        """The inputs and labels of the samples at these places in the source, int64 `[N]`.

        Raises UserError for a sample that can't be read.
        """
        return self._checked(lambda: self.source[BatchRequest((self._sampler.seed, 0), indices)])

    def indices(self) -> np.ndarray:
        """The places in the source of this process's samples, int64 `[N]`, in the order of the chosen epoch."""
        return np.concatenate([request.indices for request in self._sampler])

    def evenly_spaced_inputs(self, count: int) -> torch.Tensor:
        """The inputs of `evenly_spaced`."""
        return self.evenly_spaced(count)[0]

    def __iter__(self) -> Iterator[Batch]:
        batches = self._checked(lambda: iter(self._loader))  # also waits for the workers of the epoch before
        if self._loader.num_workers and threading.current_thread() is threading.main_thread():
            # torch's handler raises a worker's death wherever the main thread is, even in the middle of a training
            # step. Without it the death is found where the next batch is awaited, within five seconds.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        while (batch := self._checked(lambda: next(batches, None))) is not None:
            yield tuple(batch)

    def _checked(self, request: Callable[[], Result | UserError]) -> Result:
        """The result of `request()`, which may need the workers. Raises UserError: a worker's, or that one died."""
        try:
            result = request()
        except (RuntimeError, EOFError, ConnectionError, FileNotFoundError) as error:
            # the latter three where a process dies while it hands over a tensor's memory
            is_other = isinstance(error, RuntimeError) and "DataLoader worker" not in str(error)
            if is_other or not self._loader.num_workers:
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            result = ProcessError(
                f"a data-loading process died (killed, or out of memory: try fewer --workers). torch says: {reason}"
            )
        if isinstance(result, UserError):
            self._loader = self._new_loader()  # ends the workers now: the error's traceback would keep them alive
            raise result
        return result


def evenly_spaced(count: int, total: int) -> np.ndarray:
    """`count` of the numbers 0 to total - 1 at even distances, int64; all of them where there are fewer."""
    return np.arange(min(count, total)) * total // min(count, total)


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
    source: SourceImages | None = None,
) -> tuple[EpochLoader, EpochLoader]:
    """Build the training loader and the test loader of a data set.

    Batches are (images float32 `[B, C, img_size, img_size]`, labels int64 `[B]`); of a `FrameData`, (frames float32
    `[B, T, C, H, W]`, labels). The training loader shuffles, augments and drops the last, incomplete batch; the test
    loader does none of these.

    Args:
        img_size, crop_pct: by default the data set's own.
        augment: changes of training images; frames take `event_augment`, names of `AUGMENTATIONS` joined by +.
        train_images, test_images: keep this many images of the split, see `first_per_class`.
        share: this process's part of each batch; in testing its micro-batches are one.
        source: pairs each training sample of a `FrameData` with an image of its class: training batches are
            (`DomainPair`, labels).

    Raises:
        UserError: a value is out of range, or does not fit the data set.
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
    if source is not None:
        train_source = PairedSource(train_source, data, source, side)
    common = {"batch_size": batch_size, "seed": seed, "workers": workers, "pin_memory": pin_memory}
    share = share or Share()
    train_loader = EpochLoader(train_source, shuffle=True, drop_last=True, share=share, **common)
    return train_loader, EpochLoader(test_source, share=replace(share, parts=1), **common)


def _image_sources(
    data: DataSet, train: Dataset, test: Dataset, side: int, augment: Augment, crop: float
) -> tuple[BatchSource, BatchSource]:
    """The sources of the training and the test split; a split of up to `KEEP_BYTES` is kept if no pixel changes."""

    def fits(split: Dataset) -> bool:
        return len(split) * data.in_channels * side * side <= KEEP_BYTES

    train_source = BatchSource(
        train,
        train_transform(augment, side, data.mean),
        Normalise(data.mean, data.std),
        keep=not augment.random_pixels and fits(train),
        erase=random_erasing(augment),
    )
    test_source = BatchSource(
        test,
        eval_transform(side, crop, augment.interpolation),
        Normalise(data.mean, data.std),
        keep=fits(test),
    )
    return train_source, test_source


def _frame_sources(
    data: FrameData,
    train: Dataset,
    test: Dataset,
    side: int | tuple[int, int],
    augment: Augment,
    event_augment: str | None,
) -> tuple[BatchSource, BatchSource]:
    """The sources of the training and the test split of frames. Raises UserError for settings meant for images."""
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
