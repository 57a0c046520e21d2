"""Finding, checking and fetching a data set's files: whatever is wrong is one line that names the file."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from st_utils.errors import UserError

T = TypeVar("T")


def find_folder(name: str, data_dir: str, places: Sequence[str], files: Iterable[str]) -> Path:
    """The first of `places` under `data_dir` that holds any of `files`; UserError when there is none."""
    root, files = Path(data_dir).expanduser(), list(files)
    for place in places:
        if any((root / place / file).is_file() for file in files):
            return root / place
    raise UserError(
        f"{name}: {root / places[0] / files[0]} is missing (looked in {', '.join(places[1:])} there too): "
        f"pass --data-dir DIR where DIR holds it, or --download"
    )


def read_file(path: Path, md5: str | None = None) -> bytes:
    """The bytes of a file. Raises UserError when it is missing, unreadable, or not the one with this md5."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: pass --data-dir DIR where DIR holds it, or --download") from None
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror or error}") from None
    found = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if md5 and found != md5:
        raise UserError(
            f"{path} is damaged or not the official file (md5 {found}, expected {md5}): replace it, or pass --download"
        )
    return data


def check_labels(labels: np.ndarray, num_classes: int, path: Path) -> None:
    """Raise UserError unless every label is in 0..num_classes-1."""
    if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
        wrong = labels[(labels < 0) | (labels >= num_classes)][0]
        raise UserError(f"{path} has the label {wrong}, but there are {num_classes} classes: replace it")


def read_or_fetch(read: Callable[[], T], source: Any, data_dir: str, folder: str, download: bool) -> T:
    """`read()`; with `download`, what is missing or damaged is fetched by the torchvision class `source`.

    The files arrive in a hidden folder and move to `data_dir/folder` when all are complete and checked, so
    that an interrupted download leaves nothing that looks like data.
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
                os.replace(file, root / folder / file.name)
    except (RuntimeError, OSError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"downloading {source.__name__} into {root} failed: {reason}") from None
    return read()
