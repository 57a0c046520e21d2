"""What data a run was trained and tested on: classes, counts and a digest, wherever the files lie.

    data_identity(create("dataset", "digits"))
    # {'classes': 10, 'train': 1438, 'test': 359, 'digest': '1d0c...'}

The digest covers the class names and, of both splits, the labels and what the samples are made of. A split says that
in `made_of`: arrays in memory, and `Files` on disk. Of a split that does not say it, items are read, spread evenly.
What is derived, such as the cache of event frames, is no data: the recordings are.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from st_utils.data.base import DataSet
from st_utils.data.loader import seeded

WHOLE_BYTES = 2**28  # files, or an array, of up to this many bytes in all are read whole: half a second
MANY_FILES = 20_000  # of more files only names and sizes count: ImageNet has 1.3 million, in 140 GB
END_BYTES = 2**13  # else the first and the last bytes of each file are read
SAMPLE_BYTES, SAMPLE_ITEMS = 2**24, (64, 4096)  # of a split that does not say what it is made of


@dataclass(frozen=True)
class Files:
    """The file of each sample, and in `parts`, where a file holds several samples, which of it a sample is."""

    paths: Sequence[str | Path]
    parts: Sequence[Any] = ()


def data_identity(data: DataSet) -> dict[str, Any]:
    """`classes`, the counts `train` and `test`, and `digest` (32 hex digits) of a data set.

    Equal for the same data at another path. Notices other names, sizes, labels and, of up to MANY_FILES files in a
    split, other contents (above WHOLE_BYTES: of the first and last END_BYTES of each file).
    """
    digest = hashlib.blake2b(digest_size=16)
    _add(digest, [data.num_classes, *data.class_names])
    for split in (data.train, data.test):
        _add(digest, len(split))
        _add(digest, np.asarray(getattr(split, "targets", ()), dtype=np.int64))
        made_of = getattr(split, "made_of", None)
        for part in _sample(split) if made_of is None else made_of:
            _add_files(digest, part) if isinstance(part, Files) else _add(digest, part)
    counts = {"classes": data.num_classes, "train": len(data.train), "test": len(data.test)}
    return {**counts, "digest": digest.hexdigest()}


def _add(digest: Any, value: Any) -> None:
    """Take in an array or tensor, with its dtype and shape, an image, a list of these, or a plain value."""
    if isinstance(value, (list, tuple)):
        digest.update(f"{len(value)} values".encode())
        for item in value:
            _add(digest, item)
    elif value is None or isinstance(value, (bool, int, float, str, bytes)):
        digest.update(f"{value!r}\n".encode(errors="surrogateescape"))
    else:
        array = np.asarray(value)  # of numpy, torch or Pillow
        digest.update(f"{getattr(value, 'mode', '')} {array.dtype} {array.shape}\n".encode())
        step = -(-array.nbytes // WHOLE_BYTES)
        digest.update(np.ascontiguousarray(array[::step] if step > 1 else array).tobytes())


def _add_files(digest: Any, files: Files) -> None:
    paths = [os.fspath(path) for path in files.paths]
    places = {path: place for place, path in enumerate(dict.fromkeys(paths))}
    sizes = [_size(path) for path in places]
    reach = None  # how far from its ends a file is read: not at all
    if len(places) <= MANY_FILES:
        reach = WHOLE_BYTES if sum(sizes) <= WHOLE_BYTES else END_BYTES
    shared = os.path.commonprefix([min(paths), max(paths)]) if paths else ""  # noqa: RUF071 (cut at a separator below)
    start = shared.rfind(os.sep) + 1  # where the part of a path begins that does not depend on the root
    lines = [f"{path[start:]}\n{size}" for path, size in zip(places, sizes, strict=True)]
    digest.update("\n".join(lines).encode(errors="surrogateescape"))
    if reach is not None:
        for path, size in zip(places, sizes, strict=True):
            digest.update(_ends(path, size, reach))
    if len(places) < len(paths):
        _add(digest, np.array([places[path] for path in paths]))
    digest.update("\n".join(map(repr, files.parts)).encode())


def _size(path: str) -> int:
    """The size in bytes; -1 of a file that can't be read, which is an error when its sample is asked for."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _ends(path: str, size: int, reach: int) -> bytes:
    """The digest of a file's first and last `reach` bytes, of the whole file where these meet."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb", buffering=0) as file:
            digest.update(file.read(size if size <= 2 * reach else reach))
            if size > 2 * reach:
                file.seek(-reach, os.SEEK_END)
                digest.update(file.read(reach))
    except (OSError, ValueError):
        digest.update(b"unreadable")
    return digest.digest()


def _sample(split: Any) -> list[bytes]:
    """Digests of items spread evenly over a split, each read with the same random numbers.

    An item that is another when it is read again, with generators of its own, says nothing and is left out.
    """
    if not len(split):
        return []
    first = sum(np.asarray(value).nbytes for value in _values(split, 0))
    count = min(len(split), max(SAMPLE_ITEMS[0], min(SAMPLE_ITEMS[1], SAMPLE_BYTES // max(1, first))))
    found = []
    for index in np.linspace(0, len(split) - 1, count).astype(int).tolist():
        once, again = (_of_item(split, index) for _ in range(2))
        found.append(once if once == again else b"another each time")
    return found


def _of_item(split: Any, index: int) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    _add(digest, _values(split, index))
    return digest.digest()


def _values(split: Any, index: int) -> list[Any]:
    """An item's image and label; [] for one that can't be read, which is an error when a batch asks for it."""
    try:
        with seeded((0, index)):
            return list(split[index])
    except Exception:  # whatever a data set of one's own raises
        return []
