"""Find a data set's files, check them, and download what is missing; every fault is one line that names the file.

folder = find_folder("mnist", "~/data", ("MNIST/raw", "."), ["train-labels-idx1-ubyte.gz"])
data = read_file(folder / "train-labels-idx1-ubyte.gz", md5="d53e105ee54ea40749a09fcbcd1e9432")
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from st_utils.errors import UserError

Data = TypeVar("Data")


class Download(Protocol):
    """Downloads a data set into a folder: a torchvision class, or a function that is called like one."""

    __name__: str

    def __call__(self, root: str, *, download: bool) -> object: ...


def find_folder(name: str, data_dir: str, places: Sequence[str], files: Iterable[str]) -> Path:
    """The first of `places` below `data_dir` that holds any of `files`. Raises UserError when none does."""
    root, files = Path(data_dir).expanduser(), list(files)
    for place in places:
        if any((root / place / file).is_file() for file in files):
            return root / place
    raise UserError(
        f"{name}: {root / places[0] / files[0]} is missing (looked in {', '.join(places[1:])} there too): "
        f"pass --data-dir DIR where DIR holds it, or --download"
    )


def read_file(path: Path, md5: str | None = None) -> bytes:
    """Read a file's bytes. Raises UserError when it is missing or unreadable, or has another md5 than this one."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: pass --data-dir DIR where DIR holds it, or --download") from None
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}") from None
    actual = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if md5 and actual != md5:
        raise UserError(
            f"{path} is damaged or not the official file (md5 {actual}, expected {md5}): replace it, or pass --download"
        )
    return data


def check_labels(labels: np.ndarray, num_classes: int, path: Path) -> None:
    """Raise UserError, naming the file and a wrong label, unless all labels are from 0 to num_classes - 1."""
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        wrong = labels[(labels < 0) | (labels >= num_classes)][0]
        raise UserError(f"{path} has the label {wrong}, but there are {num_classes} classes: replace it")


def others(names: Sequence[object]) -> str:
    """What follows the first of several names in a sentence, such as " and 3 others"; empty for one name."""
    return {1: "", 2: " and 1 other"}.get(len(names), f" and {len(names) - 1} others")


def read_or_download(read: Callable[[], Data], source: Download, data_dir: str, folder: str, download: bool) -> Data:
    """Return `read()`; with `download`, let `source` download files that are missing or damaged first.

    The files arrive in a hidden folder and move to `data_dir/folder` when all are complete and checked: an
    interrupted download leaves nothing that looks like data. They replace those of a folder that was unpacked in part;
    other files in it stay. Raises UserError when reading or downloading fails.
    """
    try:
        return read()
    except UserError:
        if not download:
            raise
    root = Path(data_dir).expanduser()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as new:
            source(new, download=True)
            (root / folder).mkdir(parents=True, exist_ok=True)
            for file in sorted(Path(new, folder).iterdir()):
                _move(file, root / folder / file.name)
    except (RuntimeError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"downloading {source.__name__} into {root} failed: {reason}") from None
    return read()


def _move(new: Path, place: Path) -> None:
    """Move a file or a folder to its place; where a folder is there already, move what the new one holds into it."""
    if new.is_dir() and place.is_dir():
        for inner in sorted(new.iterdir()):
            _move(inner, place / inner.name)
    else:
        os.replace(new, place)
