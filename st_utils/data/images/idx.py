"""MNIST and Fashion-MNIST from idx files, gzipped or not: a magic number, the sizes in big-endian order, the pixels.

data = create("dataset", "mnist", data_dir="data", download=True)
len(data.train), len(data.test)          # 60000, 10000
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from torchvision import datasets

from registry import register
from st_utils.data.base import ArrayImages, DataSet
from st_utils.data.checked_files import check_labels, find_folder, read_file, read_or_download
from st_utils.errors import UserError

UBYTE = 0x08
SPLITS = {"train": "train", "test": "t10k"}

# md5 of the files without gzip; torchvision's `resources` has the md5 of the gzipped ones. Both data sets have the same
# file names: the md5 of the labels is enough to tell one from the other.
RAW_MD5 = {
    "MNIST": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "FashionMNIST": {
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}


def parse_idx(data: bytes, dims: int, path: Path) -> np.ndarray:
    """Parse an idx file's bytes into a uint8 array of `dims` axes. Raises UserError, naming `path`, where it can't."""
    magic, header = bytes([0, 0, UBYTE, dims]), 4 + 4 * dims
    if data[:4] != magic:
        start = data[:4].hex() or "nothing"
        raise UserError(f"{path} is no idx file of {dims} axes: it starts with {start}, not {magic.hex()}")
    shape = np.frombuffer(data, ">u4", count=dims, offset=4).tolist() if len(data) >= header else []
    expected = header + int(np.prod(shape, dtype=object))
    if not shape or len(data) != expected:
        raise UserError(f"{path} is damaged: {len(data)} bytes, but its header says {expected}: replace it")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def read_idx(folder: Path, name: str, md5: dict[str, str]) -> tuple[np.ndarray, Path]:
    """Read `name.gz`, or `name` where only that is there: the array, and the path that was read."""
    path = folder / f"{name}.gz"
    if not path.exists() and (folder / name).exists():
        path = folder / name
    data = read_file(path, md5.get(path.name))
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path} is damaged ({error}): replace it, or pass --download") from None
    return parse_idx(data, int(name.split("-idx")[1][0]), path), path


def read_split(folder: Path, split: str, md5: dict[str, str], num_classes: int) -> ArrayImages:
    """Read the split "train" or "test": images uint8 `[N, H, W]` and their labels."""
    images, image_path = read_idx(folder, f"{SPLITS[split]}-images-idx3-ubyte", md5)
    labels, label_path = read_idx(folder, f"{SPLITS[split]}-labels-idx1-ubyte", md5)
    if len(images) != len(labels):
        raise UserError(f"{image_path} has {len(images)} images, but {label_path} has {len(labels)} labels")
    check_labels(labels, num_classes, label_path)
    return ArrayImages(images, labels)


def idx_splits(
    name: str, source: type[datasets.MNIST], places: tuple[str, ...], data_dir: str, download: bool
) -> tuple[ArrayImages, ArrayImages]:
    """Read the training and the test split of the data set whose files are those of a torchvision class."""
    md5 = dict(source.resources) | RAW_MD5.get(source.__name__, {})
    base = f"{source.__name__}/raw"
    files = [file for gz, _ in source.resources for file in (gz, gz.removesuffix(".gz"))]

    def read() -> tuple[ArrayImages, ArrayImages]:
        folder = find_folder(name, data_dir, (base, *places), files)
        train, test = (read_split(folder, split, md5, len(source.classes)) for split in SPLITS)
        return train, test

    return read_or_download(read, source, data_dir, base, download)


@register.dataset("mnist", aliases=("MNIST",), source="LeCun et al., Proceedings of the IEEE 86(11), 1998")
def mnist(data_dir: str = "data", download: bool = False, img_size: int | None = None) -> DataSet:
    """Handwritten digits, 28x28 grey, 60,000 + 10,000."""
    train, test = idx_splits("mnist", datasets.MNIST, ("mnist", "mnist/raw", "raw", "."), data_dir, download)
    names = tuple(str(digit) for digit in range(10))
    side = 28 if img_size is None else img_size
    return DataSet("mnist", train, test, 10, 1, side, (0.1307,), (0.3081,), names)


@register.dataset(
    "fashion",
    aliases=("fashion_mnist", "FashionMNIST", "fashionmnist", "fmnist", "FMNIST"),
    source="Xiao, Rasul and Vollgraf, arXiv 1708.07747",
)
def fashion(data_dir: str = "data", download: bool = False, img_size: int | None = None) -> DataSet:
    """Fashion-MNIST: articles of clothing, 28x28 grey, 60,000 + 10,000."""
    places = ("fashion", "fashion/raw", "fashion_mnist", "fashion-mnist", "raw", ".")
    train, test = idx_splits("fashion", datasets.FashionMNIST, places, data_dir, download)
    names = tuple(datasets.FashionMNIST.classes)
    side = 28 if img_size is None else img_size
    return DataSet("fashion", train, test, 10, 1, side, (0.2860,), (0.3530,), names)
