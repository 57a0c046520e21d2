"""Frames of event recordings, integrated once and then read from an HDF5 cache."""

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
VERSION = 1  # of what a cache holds; a change makes the old ones unused
NEW = ".new-"  # how the name of an unfinished cache starts
COUNTS = (np.uint8, np.int16, np.int32)  # the narrowest that holds every count is stored


class ArrayFrames(Dataset):
    """Frames in memory: `frames` [N, T, C, H, W], `targets` [N]; gives (array, int).

    made_of: what the frames were computed from, see `data_identity`; without it, they are the data.
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
    """The frames of an HDF5 cache, mapped into memory; `events` [N] is how many events each sample's frames hold."""

    def __init__(self, path: Path, recordings: Sequence[Recording]):
        import h5py  # slow to import, and used by event data only

        self.path = path
        with h5py.File(path) as file:
            self.events, frames = file["events"][:], file["frames"]
            # contiguous and complete, so that it can be mapped: reading costs no copy but the one of the sample
            self._where = {"dtype": frames.dtype, "shape": frames.shape, "offset": frames.id.get_offset()}
            targets = file["targets"][:]
        super().__init__(self._map(), targets, files_of(recordings))

    def _map(self) -> np.ndarray:
        return np.memmap(self.path, mode="r", **self._where)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "frames": None, "made_of": None}  # a spawned worker maps the file itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.frames = self._map()


class IntegratedFrames(Dataset):
    """The frames of recordings that are read and integrated each time, where there is no room for a cache."""

    def __init__(self, recordings: Sequence[Recording], read: Callable[[Recording], Events], framing: Framing):
        self.recordings, self.read, self.framing = recordings, read, framing
        self.targets = np.array([recording.label for recording in recordings], np.int64)

    @property
    def made_of(self) -> list[Files]:
        return files_of(self.recordings)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        frames = self.framing(self.read(self.recordings[index]))
        return frames.astype(np.float32), int(self.targets[index])


def files_of(recordings: Sequence[Recording]) -> list[Files]:
    """What frames are made of: the recordings' files, and which part of its file each recording is."""
    return [Files([r.path for r in recordings], [(r.row, r.start, r.stop, r.part, r.shift) for r in recordings])]


def cached_frames(
    name: str,
    recordings: Sequence[Recording],
    read: Callable[[Recording], Events],
    framing: Framing,
    cache_dir: Path | None,
) -> CachedFrames | IntegratedFrames:
    """The frames of `recordings`, from the cache when one of these files with these settings is there.

    name: of data set and split, a word of the cache's file name and part of its key, as are the settings and every
    file's path, size and time of change. A cache is written beside its name and renamed when complete.
    """
    if cache_dir is None:
        return IntegratedFrames(recordings, read, framing)
    key = _key(name, recordings, framing)
    settings = f"T{framing.step}-{framing.size}-{framing.integration}"
    path = cache_dir / f"{name}-{settings}-{key[:16]}.h5"
    with _locked(cache_dir):
        if (found := _open(path, recordings)) is not None:
            return found
        logger.info("%s: %s recordings are read once, into %s", name, f"{len(recordings):,}", path)
        _write(path, recordings, read, framing)
    return CachedFrames(path, recordings)


def writable_cache(cache_dir: str | None, data_dir: str) -> Path | None:
    """The cache's folder, made: `cache_dir`, else `.event_cache` beside the data, or the user's cache folder where
    the data can't be written to. None for "none": no cache.
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
    stats = {path: path.stat() for path in {recording.path for recording in recordings}}
    samples = [(*r.place, r.label, r.shift, stats[r.path].st_size, stats[r.path].st_mtime_ns) for r in recordings]
    text = json.dumps([VERSION, name, asdict(framing), samples])
    return hashlib.sha256(text.encode()).hexdigest()


def _open(path: Path, recordings: Sequence[Recording]) -> CachedFrames | None:
    if not path.exists():
        return None
    try:
        return CachedFrames(path, recordings)
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is damaged (%s): it is made anew", path, " ".join(str(error).split()))
        return None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time: the others of a parallel run find the cache when it is their turn."""
    with open(folder / ".lock", "w") as file:
        with suppress(OSError):  # a file system without locks: each process writes its own, the last one stays
            fcntl.flock(file, fcntl.LOCK_EX)
            for spare in folder.glob(f"{NEW}*"):  # left by killed processes
                spare.unlink()
        yield


def _write(path: Path, recordings: Sequence[Recording], read: Callable[[Recording], Events], framing: Framing) -> None:
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


def _fill(file: str, recordings: Sequence[Recording], read: Callable, framing: Framing, dtype: type) -> bool:
    """Write all frames as `dtype`; False when one does not fit it."""
    most = np.inf if dtype is np.float32 else np.iinfo(dtype).max
    events = np.zeros(len(recordings), np.int64)
    places = _layout(file, recordings, framing, dtype)
    with open(file, "r+b") as store:
        store.seek(places["frames"])
        for number, recording in enumerate(recordings):
            kept = read(recording)
            counts = framing(kept)
            if counts.max() > most:
                return False
            store.write(np.ascontiguousarray(counts, dtype).data)
            events[number] = len(kept)
        store.seek(places["events"])
        store.write(events.data)
    return True


def _layout(file: str, recordings: Sequence[Recording], framing: Framing, dtype: type) -> dict[str, int]:
    """An HDF5 file with room for all frames and events, and where in it they begin.

    They are written as plain bytes, for HDF5 ends in a crash when the disk is full; it writes only what surrounds them,
    into room that was seen to be there.
    """
    import h5py

    size = len(recordings) * int(np.prod(framing.shape)) * np.dtype(dtype).itemsize
    text = [str(recording.place) for recording in recordings]
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
