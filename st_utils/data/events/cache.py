"""Frames of event recordings: integrated once, then read from an HDF5 cache.

frames = cached_frames("nmnist-train", recordings, read, Framing(4, 34, (34, 34)), writable_cache(None, "data"))
frames[0]                                # (array [4, 2, 34, 34], label), mapped from the file
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from st_utils.data.events.files import Events
from st_utils.data.events.frames import Framing, Recording
from st_utils.data.identity import Files
from st_utils.errors import UserError

logger = logging.getLogger(__name__)
VERSION = 1  # of the cache's contents; a new number makes all old caches unused
NEW = ".new-"  # prefix of an unfinished cache's name
COUNTS = (np.uint8, np.int16, np.int32)  # counts are stored in the narrowest of these that holds them all


class ArrayFrames(Dataset):
    """A split of frames in memory, `[N, T, C, H, W]`; `split[i]` is (array `[T, C, H, W]`, int).

    `made_of` lists what the frames were computed from, see `data_identity`; by default the frames themselves.
    """

    def __init__(self, frames: np.ndarray, targets: Sequence[int] | np.ndarray, made_of: list[Any] | None = None):
        self.frames, self.made_of = frames, [frames] if made_of is None else made_of
        self.targets = np.asarray(targets, dtype=np.int64)
        assert len(self.frames) == len(self.targets), "one label per sample"

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.array(self.frames[index]), int(self.targets[index])


class CachedFrames(ArrayFrames):
    """The frames of an HDF5 cache, mapped into memory; `events` `[N]` has the number of events of each sample."""

    def __init__(self, path: Path, recordings: Sequence[Recording]):
        import h5py  # slow to import, and used by event data only

        self.path = path
        with h5py.File(path) as file:
            self.events, frames = file["events"][:], file["frames"]
            # the frames lie in one contiguous block, which is mapped: reading a sample copies that sample alone
            self._where = {"dtype": frames.dtype, "shape": frames.shape, "offset": frames.id.get_offset()}
            targets = file["targets"][:]
        super().__init__(self._map(), targets, source_files(recordings))

    def _map(self) -> np.ndarray:
        return np.memmap(self.path, mode="r", **self._where)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "frames": None, "made_of": None}  # a spawned worker maps the file anew

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.frames = self._map()


class IntegratedFrames(Dataset):
    """A split whose recordings are read and integrated for every item; for a disk without room for a cache."""

    def __init__(self, recordings: Sequence[Recording], read: Callable[[Recording], Events], framing: Framing):
        self.recordings, self.read, self.framing = recordings, read, framing
        self.targets = np.array([recording.label for recording in recordings], np.int64)

    @property
    def made_of(self) -> list[Files]:
        """The recordings' files, see `data_identity`."""
        return source_files(self.recordings)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        frames = self.framing(self.read(self.recordings[index]))
        return frames.astype(np.float32), int(self.targets[index])


def source_files(recordings: Sequence[Recording]) -> list[Files]:
    """The recordings' files, and the part of its file that each recording is, for `data_identity`."""
    return [Files([r.path for r in recordings], [(r.row, r.start, r.stop, r.part, r.shift) for r in recordings])]


def cached_frames(
    name: str,
    recordings: Sequence[Recording],
    read: Callable[[Recording], Events],
    framing: Framing,
    cache_dir: Path | None,
) -> CachedFrames | IntegratedFrames:
    """The frames of recordings, from the cache, which is written first where it is missing.

    The cache's key covers `name` (of data set and split), the settings of `framing`, and every file's path, size and
    time of change. A cache is written under another name and renamed when it is complete. Without `cache_dir` frames
    are integrated for every item. Raises UserError where a recording can't be read or the cache can't be written.
    """
    if cache_dir is None:
        return IntegratedFrames(recordings, read, framing)
    key = _key(name, recordings, framing)
    settings = f"T{framing.step}-{framing.size}-{framing.integration}"
    path = cache_dir / f"{name}-{settings}-{key[:16]}.h5"
    with _locked(cache_dir):
        if (cache := _open(path, recordings)) is not None:
            return cache
        logger.info("%s: %s recordings are read once, into %s", name, f"{len(recordings):,}", path)
        _write(path, recordings, read, framing)
    return CachedFrames(path, recordings)


def writable_cache(cache_dir: str | None, data_dir: str) -> Path | None:
    """Make the cache's folder: `cache_dir`, or by default `.event_cache` in the data's folder.

    Where the data's folder can't be written to, it is in the user's cache folder. None for "none": no cache. Raises
    UserError where no folder can be written to.
    """
    if cache_dir == "none":
        return None
    if cache_dir is not None:
        places = [Path(cache_dir).expanduser()]
    else:
        home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
        places = [Path(data_dir).expanduser() / ".event_cache", home / "spiking-transformer-zoo"]
    for place in places:
        with suppress(OSError):
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                return place
    raise UserError(f"{places[0]} can't be written: pass --cache-dir DIR for the frames of event data")


def _key(name: str, recordings: Sequence[Recording], framing: Framing) -> str:
    """The cache's key, 64 hex digits. Its text must stay the same, or all caches of users become unused."""
    stats = {path: path.stat() for path in {recording.path for recording in recordings}}
    samples = [(*r.source, r.label, r.shift, stats[r.path].st_size, stats[r.path].st_mtime_ns) for r in recordings]
    text = json.dumps([VERSION, name, asdict(framing), samples])
    return hashlib.sha256(text.encode()).hexdigest()


def _open(path: Path, recordings: Sequence[Recording]) -> CachedFrames | None:
    """The cache in this file; None where it is missing or damaged."""
    if not path.exists():
        return None
    try:
        return CachedFrames(path, recordings)
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is damaged (%s): it is made anew", path, " ".join(str(error).split()))
        return None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time into the block; the other processes of a run then find the cache."""
    with open(folder / ".lock", "w") as file:
        with suppress(OSError):  # without file locks each process writes a cache of its own; the last one stays
            fcntl.flock(file, fcntl.LOCK_EX)
            for unfinished in folder.glob(f"{NEW}*"):  # of killed processes
                unfinished.unlink()
        yield


def _write(path: Path, recordings: Sequence[Recording], read: Callable[[Recording], Events], framing: Framing) -> None:
    """Integrate all recordings into the cache `path`. Raises UserError where it can't be written."""
    handle, new = tempfile.mkstemp(dir=path.parent, prefix=NEW, suffix=".tmp")
    os.close(handle)
    try:
        for dtype in COUNTS if framing.resize == "coordinates" else (np.float32,):
            if _fill(new, recordings, read, framing, dtype):
                break
        os.replace(new, path)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())[:200]
        raise UserError(f"{path} can't be written ({reason}): pass --cache-dir DIR with more room") from None
    finally:
        Path(new).unlink(missing_ok=True)


def _fill(
    file: str,
    recordings: Sequence[Recording],
    read: Callable[[Recording], Events],
    framing: Framing,
    dtype: type[np.generic],
) -> bool:
    """Write all frames as `dtype`; False as soon as a count is too large for it."""
    largest = np.inf if dtype is np.float32 else np.iinfo(dtype).max
    events = np.zeros(len(recordings), np.int64)
    places = _layout(file, recordings, framing, dtype)
    with open(file, "r+b") as store:
        store.seek(places["frames"])
        for number, recording in enumerate(recordings):
            sample = read(recording)
            counts = framing(sample)
            if counts.max() > largest:
                return False
            store.write(np.ascontiguousarray(counts, dtype).data)
            events[number] = len(sample)
        store.seek(places["events"])
        store.write(events.data)
    return True


def _layout(file: str, recordings: Sequence[Recording], framing: Framing, dtype: type[np.generic]) -> dict[str, int]:
    """Make an HDF5 file with room for the arrays "frames" and "events"; the byte at which each begins.

    The arrays are then written as plain bytes: HDF5 itself crashes when the disk is full. HDF5 writes only what is
    around them, into room that is reserved first.
    """
    import h5py

    size = len(recordings) * int(np.prod(framing.shape)) * np.dtype(dtype).itemsize
    text = [str(recording.source) for recording in recordings]
    with open(file, "wb") as store:
        os.posix_fallocate(store.fileno(), 0, size + sum(map(len, text)) + 1_000_000)
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    places = {}
    with h5py.File(file, "w") as store:
        store["targets"], store["files"] = np.array([r.label for r in recordings], np.int64), text
        store.attrs["settings"] = json.dumps(asdict(framing))
        for name, kind, shape in (("events", np.int64, ()), ("frames", dtype, framing.shape)):
            space, kind = h5py.h5s.create_simple((len(recordings), *shape)), h5py.h5t.py_create(np.dtype(kind))
            places[name] = h5py.h5d.create(store.id, name.encode(), kind, space, layout).get_offset()
    with open(file, "r+b") as store:
        os.posix_fallocate(store.fileno(), 0, places["frames"] + size)
    return places
