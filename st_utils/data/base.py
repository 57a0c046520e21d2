"""What a data set is: two splits of labelled images and the facts that a model and a loader need."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset, Subset

from st_utils.errors import UserError


@dataclass
class DataSet:
    """A registered data set, read and checked, before any transform.

    `train` and `test` are map-style: `split[i]` is (PIL image, label in 0..num_classes-1), the image of
    mode "L" for one channel and "RGB" for three; `split.targets` are the labels; `split.made_of`, if it is there,
    lists the arrays and `Files` that its samples come from (see `data_identity`). `img_size` is the side in
    pixels to train at when nothing else is asked. `mean` and `std` are per channel, on the 0..1 scale.
    `crop_pct` is the part of the side that a test image keeps (ImageNet's 224 of 256; 1 for small images).
    """

    name: str
    train: Dataset
    test: Dataset
    num_classes: int
    in_channels: int
    img_size: int | tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    crop_pct: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.img_size, tuple) and self.img_size < 1:
            raise UserError(f"{self.name}: img_size is {self.img_size}: give a side of at least 1 pixel")
        assert len(self.mean) == len(self.std) == self.in_channels, f"{self.name}: a mean and std per channel"
        assert len(self.class_names) == self.num_classes, f"{self.name}: one name per class"


@dataclass
class FrameData(DataSet):
    """A data set of frames: `split[i]` is (array [T, C, H, W], label), with T = `step`.

    `img_size` is their side, or (H, W). What enters the network is (frames / scale - mean) / std; for event counts
    scale and std are 1 and the mean is 0.
    """

    step: int = 4
    scale: float = 1.0


class ArrayImages(Dataset):
    """Images in memory: `images` uint8 [N, H, W] or [N, H, W, 3], `targets` [N]; gives (PIL image, int)."""

    def __init__(self, images: np.ndarray, targets: Sequence[int] | np.ndarray):
        self.images = images
        self.targets = np.asarray(targets, dtype=np.int64)
        assert len(self.images) == len(self.targets), "one label per image"

    @property
    def made_of(self) -> list[Any]:
        return [self.images]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[index]), int(self.targets[index])


def labels_of(split: Any) -> np.ndarray:
    """The labels of a split, int64 `[N]`, or of those of its images that `first_per_class` keeps."""
    if isinstance(split, Subset):
        return labels_of(split.dataset)[split.indices]
    return np.asarray(split.targets, dtype=np.int64)


def first_per_class(split: Any, count: int, what: str) -> Subset:
    """The first `count` images of a split, taken in turn from every class, in the split's order.

    The choice is a function of the labels alone, so it is the same on every run. Raises UserError, which
    calls the number `what`, when the split has fewer images.
    """
    if not 1 <= count <= len(split):
        raise UserError(f"{what}={count} can't be met: choose 1 to {len(split)}")
    targets = np.asarray(split.targets)
    rank = np.empty(len(targets), dtype=np.int64)
    for label in np.unique(targets):
        members = np.flatnonzero(targets == label)
        rank[members] = np.arange(len(members))
    return Subset(split, np.sort(np.argsort(rank, kind="stable")[:count]).tolist())
