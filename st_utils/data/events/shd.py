"""Spiking Heidelberg Digits: spoken digits as spikes of 700 channels of an artificial ear."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from registry import register
from st_utils.data.base import FrameData
from st_utils.data.events.files import Events, events_of
from st_utils.data.events.frames import Framing, Integration, Recording
from st_utils.data.events.scan import fetched, find_root
from st_utils.data.events.sets import frame_data
from st_utils.data.files import check_labels
from st_utils.errors import UserError

CHANNELS = 700
NAMES = tuple(f"{language} {digit}" for language in ("English", "German") for digit in range(10))


class Spectrogram(Framing):
    """Frames as pictures of sound: of `step` times `size` bins of time a frame has `size`, one a row.

    Column: channel * size // 700. The models' convolutions and tokens then see time and pitch: the data have no
    other second axis.
    """

    def __call__(self, events: Events) -> np.ndarray:
        fine = Framing(self.step * self.size, 1, None, self.integration).frame_of(events.t)
        column = events.x * self.size // self.sensor[0]
        counts = np.bincount(fine * self.size + column, minlength=self.step * self.size**2)
        return counts.reshape(self.shape)


@lru_cache(maxsize=2)
def _table(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times in seconds and channels, an array a recording, and the labels."""
    import h5py

    try:
        with h5py.File(path) as file:
            return file["spikes/times"][:], file["spikes/units"][:], file["labels"][:].astype(np.int64)
    except (OSError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} can't be read as SHD's HDF5 file ({reason}): replace it, or pass --download") from None


def _read(recording: Recording) -> Events:
    times, units, _ = _table(recording.path)
    t, x = times[recording.row].astype(np.float64), units[recording.row]
    if not len(t) or len(t) != len(x) or np.max(x, initial=0) >= CHANNELS:
        raise UserError(f"{recording.path}, recording {recording.row} has no spikes of channels 0 to 699: replace it")
    return events_of(x, np.zeros(len(t)), np.rint(t * 1e6), np.ones(len(t)))


@register.dataset("shd", aliases=("SHD",), source="Cramer et al., IEEE TNNLS 2020, arXiv:1910.07407")
def shd(
    data_dir: str = "data",
    download: bool = False,
    cache_dir: str | None = None,
    step: int = 4,
    event_size: int = 32,
    integration: Integration = "time",
) -> FrameData:
    """Spiking Heidelberg Digits: 20 spoken digits, 8,156 + 2,264; a frame is event_size bins of time by channels.

    The data are 1-D; see Spectrogram for how they become pictures.
    """

    def read() -> tuple[list[Recording], list[Recording]]:
        root = find_root(
            "shd", data_dir, ("SHD", "shd", "hsd"), lambda p: (p / "shd_train.h5").is_file(), "shd_train.h5"
        )
        splits = []
        for path in (root / "shd_train.h5", root / "shd_test.h5"):
            labels = _table(path)[2]
            check_labels(labels, len(NAMES), path)
            splits.append([Recording(path, int(label), row=row) for row, label in enumerate(labels)])
        return splits[0], splits[1]

    split = fetched(read, "SHD", data_dir, download)
    framing = Spectrogram(step, event_size, (CHANNELS, 1), integration, channels=1)
    data = frame_data("shd", split, NAMES, framing, data_dir, cache_dir, _read)
    _table.cache_clear()
    return data
