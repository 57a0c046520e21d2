"""Data sets: two splits of labelled images or frames, and what a model and a loader must know of them.

data = create("dataset", "digits")
image, label = data.train[0]                # PIL image of mode "L", 0 to 9
data.num_classes, data.img_size, data.mean  # 10, 32, (0.3051,)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset, Subset

from st_utils.errors import UserError


@dataclass
class DataSet:
    """A registered data set, read and checked, before any transform.

    Attributes:
        train, test: map-style splits. `split[i]` is (PIL image, class number from 0 to num_classes - 1); the image has
            mode "L" for one channel, "RGB" for three. `split.targets` holds the labels. `split.made_of`, which a
            split may have, lists the arrays and `Files` that its samples come from, see `data_identity`;
            `split.objects` names the object that each sample shows, such as "accordion/12", see `check_pair`.
        img_size: the side in pixels to train at, unless the user asks for another.
        mean, std: of each channel of the training images, on the scale 0 to 1.
        crop_pct: share of the side that a test image keeps: 224 / 256 for ImageNet, 1 for small images.
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
    """A data set of frames: `split[i]` is (array `[T, C, H, W]`, label) with T = `step`.

    `img_size` is the frames' side, or (H, W). The network's input is (frames / scale - mean) / std; event counts have
    scale = std = 1 and mean = 0. `read_frames` turns a recording's file into frames as those of the splits are made;
    None where the samples are no files.
    """

    step: int = 4
    scale: float = 1.0
    read_frames: Callable[[Path], np.ndarray] | None = None


class ArrayImages(Dataset):
    """A split of images in memory, uint8 `[N, H, W]` or `[N, H, W, 3]`; `split[i]` is (PIL image, int)."""

    def __init__(self, images: np.ndarray, targets: Sequence[int] | np.ndarray):
        self.images = images
        self.targets = np.asarray(targets, dtype=np.int64)
        assert len(self.images) == len(self.targets), "one label per image"

    @property
    def made_of(self) -> list[np.ndarray]:
        """The arrays that the samples come from, see `data_identity`."""
        return [self.images]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.images[index]), int(self.targets[index])


def labels_of(split: Any) -> np.ndarray:
    """The labels of a split, or of the part of a split that `first_per_class` keeps, int64 `[N]`."""
    if isinstance(split, Subset):
        return labels_of(split.dataset)[split.indices]
    return np.asarray(split.targets, dtype=np.int64)


def first_per_class(split: Any, count: int, what: str) -> Subset:
    """Keep `count` images of a split: the first of every class, then the second of every class, and so on.

    They stay in the split's order. The choice is a function of the labels alone: it is the same in every run.
    `what` is the setting that gives `count`; the UserError for a split with fewer images names it.
    """
    if not 1 <= count <= len(split):
        raise UserError(f"{what}={count} can't be met: choose 1 to {len(split)}")
    targets = labels_of(split)
    rank = np.empty(len(targets), dtype=np.int64)
    for label in np.unique(targets):
        members = np.flatnonzero(targets == label)
        rank[members] = np.arange(len(members))
    return Subset(split, np.sort(np.argsort(rank, kind="stable")[:count]).tolist())
