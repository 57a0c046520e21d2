"""The identity of a data set: classes, counts and a digest of its contents, which do not depend on where it lies.

    data_identity(create("dataset", "digits"))
    # {'classes': 10, 'train': 1438, 'test': 359, 'digest': '98a7...'}

The digest covers the class names and, of each split, the labels and the sources of the samples: the arrays in memory
and the `Files` on disk that the split lists in `made_of`. Of a split without `made_of`, some items are read, at even
distances. Event frames have the identity of the recordings, not of the cache that is computed from them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from st_utils.data.base import DataSet
from st_utils.data.seeding import seeded

WHOLE_BYTES = 2**28  # files or an array of up to this many bytes together are read whole: that takes half a second
MANY_FILES = 20_000  # of more files only names and sizes are hashed: ImageNet has 1.3 million files in 140 GB
END_BYTES = 2**13  # of files with more than WHOLE_BYTES, this many bytes at each end are read
SAMPLE_BYTES, SAMPLE_ITEMS = 2**24, (64, 4096)  # of a split without `made_of`: about these bytes, in 64 to 4096 items


@dataclass(frozen=True)
class Files:
    """The files that samples come from.

    Attributes:
        paths: the file of each sample.
        parts: what each sample is of its file, such as a row or a span of time; empty where each has its own file.
    """

    paths: Sequence[str | Path]
    parts: Sequence[Any] = ()


class _Hash(Protocol):
    """A hash of hashlib."""

    def update(self, data: bytes, /) -> None: ...


def data_identity(data: DataSet) -> dict[str, Any]:
    """Identify a data set by `classes`, the counts `train` and `test`, and a `digest` of 32 hex digits.

    The same data at another path are equal. Other names, sizes and labels are noticed; other contents too, in splits
    of up to MANY_FILES files (in splits of more than WHOLE_BYTES, in the first and last END_BYTES of each file).
    """
    digest = hashlib.blake2b(digest_size=16)
    _hash(digest, [data.num_classes, *data.class_names])
    for split in (data.train, data.test):
        _hash(digest, len(split))
        _hash(digest, np.asarray(getattr(split, "targets", ()), dtype=np.int64))
        made_of = getattr(split, "made_of", None)
        for part in _digests_of_items(split) if made_of is None else made_of:
            _hash_files(digest, part) if isinstance(part, Files) else _hash(digest, part)
    counts = {"classes": data.num_classes, "train": len(data.train), "test": len(data.test)}
    return {**counts, "digest": digest.hexdigest()}


def _hash(digest: _Hash, value: Any) -> None:
    """Add a value to the digest: an array or tensor with its dtype and shape, an image, a plain value, or a list."""
    if isinstance(value, (list, tuple)):
        digest.update(f"{len(value)} values".encode())
        for item in value:
            _hash(digest, item)
    elif value is None or isinstance(value, (bool, int, float, str, bytes)):
        digest.update(f"{value!r}\n".encode(errors="surrogateescape"))
    else:
        array = np.asarray(value)  # of numpy, torch or Pillow
        digest.update(f"{getattr(value, 'mode', '')} {array.dtype} {array.shape}\n".encode())
        step = -(-array.nbytes // WHOLE_BYTES)
        digest.update(np.ascontiguousarray(array[::step] if step > 1 else array).tobytes())


def _hash_files(digest: _Hash, files: Files) -> None:
    """Add to the digest the files' names below their common folder, their sizes, and what is read of them."""
    paths = [os.fspath(path) for path in files.paths]
    places = {path: place for place, path in enumerate(dict.fromkeys(paths))}
    sizes = [_size(path) for path in places]
    end_bytes = None  # None: files are not read, see MANY_FILES
    if len(places) <= MANY_FILES:
        end_bytes = WHOLE_BYTES if sum(sizes) <= WHOLE_BYTES else END_BYTES
    shared = os.path.commonprefix([min(paths), max(paths)]) if paths else ""  # noqa: RUF071 (cut at a separator below)
    start = shared.rfind(os.sep) + 1  # a path from here on does not depend on where the data set lies
    lines = [f"{path[start:]}\n{size}" for path, size in zip(places, sizes, strict=True)]
    digest.update("\n".join(lines).encode(errors="surrogateescape"))
    if end_bytes is not None:
        for path, size in zip(places, sizes, strict=True):
            digest.update(_digest_of_ends(path, size, end_bytes))
    if len(places) < len(paths):
        _hash(digest, np.array([places[path] for path in paths]))
    digest.update("\n".join(map(repr, files.parts)).encode())


def _size(path: str) -> int:
    """A file's size in bytes; -1 where it can't be read, which is an error later, when its sample is read."""
    try:
        return os.stat(path).st_size
    except OSError:
        return -1


def _digest_of_ends(path: str, size: int, end_bytes: int) -> bytes:
    """The digest of a file's first and last `end_bytes` bytes; of the whole file where the two overlap."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb", buffering=0) as file:
            digest.update(file.read(size if size <= 2 * end_bytes else end_bytes))
            if size > 2 * end_bytes:
                file.seek(-end_bytes, os.SEEK_END)
                digest.update(file.read(end_bytes))
    except (OSError, ValueError):
        digest.update(b"unreadable")
    return digest.digest()


def _digests_of_items(split: Any) -> list[bytes]:
    """The digests of items at even distances in a split, each read with fixed random numbers.

    An item that differs when it is read again has random generators of its own: it counts as "another each time".
    """
    if not len(split):
        return []
    first = sum(np.asarray(value).nbytes for value in _values(split, 0))
    count = min(len(split), max(SAMPLE_ITEMS[0], min(SAMPLE_ITEMS[1], SAMPLE_BYTES // max(1, first))))
    digests = []
    for index in np.linspace(0, len(split) - 1, count).astype(int).tolist():
        once, again = (_digest_of_item(split, index) for _ in range(2))
        digests.append(once if once == again else b"another each time")
    return digests


def _digest_of_item(split: Any, index: int) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    _hash(digest, _values(split, index))
    return digest.digest()


def _values(split: Any, index: int) -> list[Any]:
    """An item's image and label; [] where it can't be read, which is an error later, when a batch has it."""
    try:
        with seeded((0, index)):
            return list(split[index])
    except Exception:  # a user's data set may raise anything
        return []
