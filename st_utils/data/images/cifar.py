"""CIFAR-10 and CIFAR-100 from the official Python pickles; nothing is unpickled before its md5 is checked.

data = create("dataset", "cifar10", data_dir="data", download=True)
len(data.train), len(data.test)          # 50000, 10000
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torchvision import datasets

from registry import register
from st_utils.data.base import ArrayImages, DataSet
from st_utils.data.checked_files import check_labels, find_folder, read_file, read_or_download

REPORT = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009"


def read_pickle(path: Path, md5: str) -> dict[str, Any]:
    """Read the dictionary in a pickle with this md5. The bytes that are checked are the bytes that are unpickled."""
    return pickle.loads(read_file(path, md5), encoding="latin1")


def read_split(folder: Path, files: list[list[str]], num_classes: int) -> ArrayImages:
    """Read the split in `files`, a list of [name, md5]: images uint8 `[N, 32, 32, 3]` and their labels."""
    images, labels = [], []
    for name, md5 in files:
        batch = read_pickle(folder / name, md5)
        images.append(batch["data"])
        labels.append(np.asarray(batch["labels"] if "labels" in batch else batch["fine_labels"]))
        check_labels(labels[-1], num_classes, folder / name)
    planes = np.concatenate(images).reshape(-1, 3, 32, 32)
    return ArrayImages(np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.concatenate(labels))


class CIFARSplits(NamedTuple):
    """The two splits and the class names of a data set in CIFAR's files."""

    train: ArrayImages
    test: ArrayImages
    class_names: tuple[str, ...]


def cifar_splits(name: str, source: type[datasets.CIFAR10], data_dir: str, download: bool) -> CIFARSplits:
    """Read the data set whose files and md5s are those of a torchvision class. Raises UserError, see `read_file`."""
    base = source.base_folder
    places = (base, ".", name, f"{name}/{base}", name.upper(), f"{name.upper()}/{base}")
    files = [file for file, _ in source.train_list + source.test_list] + [source.meta["filename"]]

    def read() -> CIFARSplits:
        folder = find_folder(name, data_dir, places, files)
        names = read_pickle(folder / source.meta["filename"], source.meta["md5"])[source.meta["key"]]
        train = read_split(folder, source.train_list, len(names))
        test = read_split(folder, source.test_list, len(names))
        return CIFARSplits(train, test, tuple(names))

    return read_or_download(read, source, data_dir, base, download)


@register.dataset("cifar10", aliases=("CIFAR10", "cifar_10", "CIFAR_10"), source=REPORT)
def cifar10(data_dir: str = "data", download: bool = False, img_size: int | None = None) -> DataSet:
    """CIFAR-10: photographs of 10 classes, 32x32 RGB, 50,000 + 10,000."""
    train, test, names = cifar_splits("cifar10", datasets.CIFAR10, data_dir, download)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    return DataSet("cifar10", train, test, 10, 3, 32 if img_size is None else img_size, mean, std, names)


@register.dataset("cifar100", aliases=("CIFAR100", "cifar_100", "CIFAR_100"), source=REPORT)
def cifar100(data_dir: str = "data", download: bool = False, img_size: int | None = None) -> DataSet:
    """CIFAR-100: photographs of 100 classes, 32x32 RGB, 50,000 + 10,000."""
    train, test, names = cifar_splits("cifar100", datasets.CIFAR100, data_dir, download)
    mean, std = (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)
    return DataSet("cifar100", train, test, 100, 3, 32 if img_size is None else img_size, mean, std, names)
