"""What a data set must be when it is built: two splits that hold what their `DataSet` says of them."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset

from registry import Entry
from st_utils.contracts.built import broken, what_is
from st_utils.data.base import DataSet, FrameData
from st_utils.data.seeding import seeded

ITEMS = 8  # samples of a split, spread over it, that are read


def check_data(entry: Entry, data: Any) -> None:
    """Raise PluginError for what is no `DataSet` or whose splits do not hold what it says of them."""
    if not isinstance(data, DataSet):
        raise broken(entry, f"is built as {what_is(data)}")
    for field in ("num_classes", "in_channels"):
        if not isinstance(value := getattr(data, field), int) or value < 1:
            raise broken(entry, f"has {field}={value!r} ({type(value).__name__}), which is no int of 1 or more")
    if not all(value > 0 for value in data.std):
        raise broken(entry, f"has std={data.std!r}: images are divided by it, so give numbers above 0")
    for name in ("train", "test"):
        if what := _wrong_split(data, getattr(data, name)):
            raise broken(entry, f"has a {name} split {what}")


def _wrong_split(data: DataSet, split: Any) -> str | None:
    """What is wrong with a split, after "a split"; None when nothing is."""
    if not (hasattr(split, "__len__") and hasattr(split, "__getitem__")):
        return f"without __len__ and __getitem__ ({what_is(split)})"
    if not len(split):
        return "without a sample"
    whole = split.dataset if isinstance(split, Subset) else split
    if not hasattr(whole, "targets"):
        return "without targets, the label of each sample"
    labels = np.asarray(whole.targets)
    labels = labels[split.indices] if isinstance(split, Subset) else labels
    if labels.shape != (len(split),):
        return f"of {len(split)} samples with targets of shape {list(labels.shape)}: give one label per sample"
    if labels.dtype.kind not in "iu":
        return f"with targets of {labels.dtype}: labels are integers"
    if not 0 <= labels.min() <= labels.max() < data.num_classes:
        return f"with labels from {labels.min()} to {labels.max()}: num_classes={data.num_classes} allows " + (
            f"0 to {data.num_classes - 1}"
        )
    with seeded((0,)):
        for place in np.unique(np.linspace(0, len(split) - 1, ITEMS).astype(int)).tolist():
            if what := _wrong_item(data, split[place], int(labels[place])):
                return f"whose sample {place} {what}"
    return None


def _wrong_item(data: DataSet, item: Any, label: int) -> str | None:
    """What is wrong with a sample, after "sample 3"; None when nothing is."""
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        return f"is {what_is(item)}, not the pair (image, label)"
    image, own = item
    if not _is_integer(own) or own != label:
        return f"has the label {own!r} ({type(own).__name__}), and targets say {label}"
    if not isinstance(data, FrameData):
        mode = {1: "'L'", 3: "'RGB'"}.get(data.in_channels, f"{data.in_channels} bands")
        if not isinstance(image, Image.Image):
            return f"is {what_is(image)}: in_channels={data.in_channels} asks for a PIL image of mode {mode}"
        if len(image.getbands()) != data.in_channels or image.mode in ("1", "P", "I", "F"):
            return f"is of mode {image.mode!r}: in_channels={data.in_channels} asks for a PIL image of mode {mode}"
        return None
    side = data.img_size if isinstance(data.img_size, tuple) else (data.img_size, data.img_size)
    wanted = [data.step, data.in_channels, *side]
    if not isinstance(image, (np.ndarray, Tensor)) or list(image.shape) != wanted:
        return f"is {what_is(image)}, not an array of {wanted}: [step, in_channels, H, W]"
    if isinstance(image, np.ndarray) and image.dtype.kind not in "biuf":
        return f"is an array of {image.dtype}: frames are numbers"
    return None


def _is_integer(label: Any) -> bool:
    try:
        operator.index(label)  # an int of Python, numpy or torch
    except TypeError:
        return False
    return True
