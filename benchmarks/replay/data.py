"""Write small data sets in the file formats of the real ones, and a plug-in; the same bytes in every call.

write_data(Path("data"))  # then `python main.py --dataset nmnist --data-dir data/nmnist` works
"""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import h5py
import numpy as np
from numpy.random import RandomState  # it gives the same numbers in every version of numpy (NEP 19)
from PIL import Image

PLUGIN = '''"""An attention of a plug-in."""

from torch import nn

from registry import register


@register.attention("replayed")
class Replayed(nn.Module):
    """Convolution over the columns."""

    def __init__(self, dim: int, k: int = 3):
        super().__init__()
        self.conv = nn.Conv3d(dim, dim, (1, k, k), padding="same")

    def forward(self, x):
        return self.conv(x.permute(1, 2, 0, 3, 4)).permute(2, 0, 1, 3, 4)
'''


def write_data(folder: Path) -> None:
    """Write one folder per data set, and plugin.py. Labels take turns, so that a few samples have all classes."""
    random = RandomState(11)
    for split in ("train", "test"):
        _write_arrays(folder, split, random)
        for number in range(60):
            _write_images(folder, split, number, random)
            _write_events(folder, split, number, random)
        _write_shd(_with_folder(folder / "shd" / f"shd_{split}.h5"), random)
    (folder / "plugin.py").write_text(PLUGIN)


def _with_folder(path: Path) -> Path:
    """The path, after making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write_arrays(folder: Path, split: str, random: RandomState) -> None:
    """Write MNIST's idx files and CIFAR-10's pickles."""
    labels = np.arange(48, dtype=np.uint8) % 10
    start = "t10k" if split == "test" else split
    idx = {"images-idx3": random.randint(0, 256, (48, 28, 28), dtype=np.uint8), "labels-idx1": labels}
    for name in ("mnist", "smnist", "psmnist"):
        for kind, array in idx.items():
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            path = _with_folder(folder / name / f"{start}-{kind}-ubyte.gz")
            path.write_bytes(gzip.compress(header + array.tobytes(), mtime=0))
    batch = {"data": random.randint(0, 256, (48, 3 * 32 * 32), dtype=np.uint8), "labels": labels.tolist()}
    for name in ("cifar10", "scifar10"):
        _with_folder(folder / name / split).write_bytes(pickle.dumps(batch))
        (folder / name / "meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))


def _write_images(folder: Path, split: str, number: int, random: RandomState) -> None:
    """Write an image into a folder of class folders, and into one in ImageNet's layout."""
    image = Image.fromarray(random.randint(0, 256, (20, 24, 3), dtype=np.uint8))
    image.save(_with_folder(folder / "folder" / f"kind{number % 2}" / f"{split}{number}.png"))
    inside = "val" if split == "test" else split
    image.save(_with_folder(folder / "imnet" / inside / f"n0000000{number % 2}" / f"{number}.JPEG"))


def _write_events(folder: Path, split: str, number: int, random: RandomState) -> None:
    """Write one recording of events: in N-MNIST's format of 40 bits per event, and as arrays."""
    x, y = random.randint(0, 34, (2, 200))
    t, p = np.sort(random.randint(0, 300_000, 200)), random.randint(0, 2, 200)
    rows = np.stack([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255], 1).astype(np.uint8)
    path = _with_folder(folder / "nmnist" / split.capitalize() / str(number % 2) / f"{number:05d}.bin")
    path.write_bytes(rows.tobytes())
    np.savez(
        _with_folder(folder / "event_folder" / split / f"kind{number % 2}" / f"{number:05d}.npz"), x=x, y=y, t=t, p=p
    )


def _write_shd(path: Path, random: RandomState) -> None:
    """Write the spikes of 48 recordings: times in seconds and channels 0 to 699."""
    with h5py.File(path, "w") as file:
        times = file.create_dataset("spikes/times", 48, h5py.vlen_dtype(np.float16))
        units = file.create_dataset("spikes/units", 48, h5py.vlen_dtype(np.uint16))
        for row in range(48):
            times[row] = np.sort(random.rand(60)).astype(np.float16)
            units[row] = random.randint(0, 700, 60)
        file["labels"] = np.arange(48) % 20
