"""Pairs for transfer learning: each event sample with an image of its class, drawn anew in every epoch.

    source = SourceImages(create("dataset", "mnist"), ratio=0.5)
    pairs = PairedSource(BatchSource(events.train, ...), events, source)
    (images, frames), labels = pairs[request]   # float32 [B, 1, H, W], [B, T, C, H, W], int64 [B]

Which image it is, is a function of (seed, epoch, the sample's index) alone, like all random numbers of the loaders.
He et al. 2024, arXiv:2303.13077.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from st_utils.data.base import DataSet, FrameData, first_per_class, labels_of
from st_utils.data.batches import BatchRequest, BatchSource
from st_utils.data.checked_files import others
from st_utils.errors import UserError

PAIR = 3  # what comes after (seed, epoch) in the entropy of the draw of a partner, see batches.py
KEEP_BYTES = 2**30  # source images, one channel each, are kept in memory up to this many bytes


class DomainPair(NamedTuple):
    """A batch of both domains: images `[B, 1, H, W]` and the frames of events `[B, T, C, H, W]`."""

    images: Tensor
    events: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> DomainPair:
        return DomainPair(change(self.images), change(self.events))

    def chunk(self, count: int) -> list[DomainPair]:
        """The batch in `count` micro-batches."""
        return [DomainPair(*both) for both in zip(self.images.chunk(count), self.events.chunk(count), strict=True)]


@dataclass(frozen=True)
class SourceImages:
    """The images that transfer learning starts from.

    Attributes:
        data: a data set of images; its training split is used.
        ratio: share of that split, the first images of each class in turn.
        hsv: of colour images, V = max(R, G, B) is seen; False: the blue channel, as the authors' --no-use-hsv.
        standardise: subtract the data set's mean and divide by its std; False: values from 0 to 1.
    """

    data: DataSet
    ratio: float = 1.0
    hsv: bool = True
    standardise: bool = False

    def check(self, target: DataSet) -> None:
        """Raise UserError unless these images and the target's events can be paired by class."""
        if isinstance(self.data, FrameData):
            raise UserError(f"source {self.data.name} has frames: give a data set of images, such as mnist or cifar10")
        if not isinstance(target, FrameData) or isinstance(target.img_size, tuple):
            raise UserError(f"source {self.data.name}: {target.name} is no event data set: give one by --dataset")
        check_pair(self.data, target)


def check_pair(source: DataSet, target: DataSet) -> None:
    """Raise UserError unless images and events have the same classes and no object is trained on and tested on.

    Names of classes may differ where a data set has only numbers for them, but not in data sets that name the objects
    that their samples show, see `objects_of`.
    """
    lacking = _lacking(source, target)
    if source.num_classes != target.num_classes:
        raise UserError(
            f"source {source.name} has {source.num_classes} classes and {target.name} {target.num_classes}: "
            f"give two data sets of the same classes{lacking}"
        )
    if source.class_names != target.class_names and not lacking:
        raise UserError(f"source {source.name} and {target.name} have their classes in another order")
    tested = objects_of(target.test)
    if lacking and tested and objects_of(source.train):
        raise UserError(f"source {source.name} and {target.name} have different classes{lacking}: make them the same")
    if shared := sorted(set(objects_of(source.train)) & set(tested)):
        raise UserError(
            f"source {source.name} trains on {shared[0]}{others(shared)}, which {target.name} tests on: "
            f"give both data sets the same split"
        )


def objects_of(split: Any) -> list[str]:
    """The names of the objects that a split's samples show, or of those that a `Subset` keeps; [] where it has none."""
    if isinstance(split, Subset):
        names = objects_of(split.dataset)
        return [names[index] for index in split.indices] if names else []
    return list(getattr(split, "objects", ()))


def _lacking(source: DataSet, target: DataSet) -> str:
    """Which classes one of the two lacks, in brackets; empty where both have the same names."""
    for here, there in ((source, target), (target, source)):
        if missing := sorted(set(there.class_names) - set(here.class_names)):
            return f" ({here.name} lacks {missing[0]!r}{others(missing)})"
    return ""


class PairedSource(Dataset):
    """Reads batches of `events` with an image of the same class beside each sample.

    Args:
        events: of the training split of `target`.
        side: of the frames, in pixels; images are resized to side x side, without a crop.

    Raises:
        UserError: the two can't be paired, see `SourceImages.check`, or a class of the events has no image.
    """

    def __init__(self, events: BatchSource, target: DataSet, source: SourceImages, side: int):
        source.check(target)
        images = source.data.train
        if source.ratio < 1:
            images = first_per_class(images, max(1, round(source.ratio * len(images))), "source_ratio")
        labels = labels_of(images)
        self.members = [np.flatnonzero(labels == label) for label in range(target.num_classes)]
        self.labels = labels_of(events.samples)
        for label in np.unique(self.labels):
            if not len(self.members[label]):
                raise UserError(f"source {source.data.name} has no image of class {target.class_names[label]}")
        mean, std = (np.mean(source.data.mean), np.mean(source.data.std)) if source.standardise else (0.0, 1.0)
        self.images = BatchSource(
            images,
            OneChannel(side, source.hsv),
            lambda pixels: pixels.float().div_(255).sub_(mean).div_(std),
            keep=len(images) * side * side <= KEEP_BYTES,
        )
        self.events, self.samples = events, events.samples
        self.keep = events.keep and self.images.keep

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, request: BatchRequest) -> tuple[DomainPair, Tensor] | UserError:
        events = self.events[request]
        if isinstance(events, UserError):
            return events
        images = self.images[BatchRequest(request.entropy, self.partners(request))]
        return images if isinstance(images, UserError) else (DomainPair(images[0], events[0]), events[1])

    def partners(self, request: BatchRequest) -> np.ndarray:
        """The index of the image that each sample of a request is paired with, int64 `[B]`."""
        drawn = []
        for index in request.indices.tolist():
            members = self.members[self.labels[index]]
            drawn.append(members[np.random.default_rng((*request.entropy, PAIR, index)).integers(len(members))])
        return np.array(drawn, dtype=np.int64)


class OneChannel:
    """Resize an image to side x side (bilinear), and keep one channel: PIL image -> uint8 `[1, side, side]`."""

    random = False

    def __init__(self, side: int, hsv: bool = True):
        self.side, self.hsv = side, hsv

    def __call__(self, image: Image.Image) -> Tensor:
        pixels = F.pil_to_tensor(F.resize(image, [self.side, self.side], InterpolationMode.BILINEAR))
        return pixels.amax(0, keepdim=True) if self.hsv else pixels[-1:]
