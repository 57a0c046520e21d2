"""Spiking Heidelberg Digits: spoken digits as the spikes of 700 channels of an artificial cochlea.

data = create("dataset", "shd", data_dir="data", step=4, event_size=32)
frames, label = data.train[0]            # counts [4, 1, 32, 32]: rows are time, columns are channels
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from registry import register
from st_utils.data.base import FrameData
from st_utils.data.checked_files import check_labels
from st_utils.data.events.files import Events, sorted_events
from st_utils.data.events.frames import Framing, Integration, Recording
from st_utils.data.events.scan import Split, find_root, read_or_download_with_tonic
from st_utils.data.events.sets import frame_data
from st_utils.errors import UserError

CHANNELS = 700
NAMES = tuple(f"{language} {digit}" for language in ("English", "German") for digit in range(10))


class Spectrogram(Framing):
    """Settings that turn the spikes of a recording into `step` frames `[1, size, size]` of time by channel.

    The time is divided into step * size bins; a frame has `size` of them, one per row. The column is
    channel * size // 700. Convolutions and tokens then see time and pitch, as the data have no second axis in space.
    """

    def __call__(self, events: Events) -> np.ndarray:
        row = Framing(self.step * self.size, 1, None, self.integration).frame_index(events.t)
        column = events.x * self.size // self.sensor[0]
        counts = np.bincount(row * self.size + column, minlength=self.step * self.size**2)
        return counts.reshape(self.shape)


class SpikeTable(NamedTuple):
    """The contents of a file: for each of N recordings an array of times in s and one of channels; labels `[N]`."""

    times: np.ndarray
    channels: np.ndarray
    labels: np.ndarray


@lru_cache(maxsize=2)
def _table(path: Path) -> SpikeTable:
    """Read one of SHD's HDF5 files. Raises UserError where it can't be read."""
    import h5py

    try:
        with h5py.File(path) as file:
            times, channels = file["spikes/times"][:], file["spikes/units"][:]
            return SpikeTable(times, channels, file["labels"][:].astype(np.int64))
    except (OSError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} can't be read as SHD's HDF5 file ({reason}): replace it, or pass --download") from None


def _read(recording: Recording) -> Events:
    """The spikes of one recording, x the channel and t the time in us. Raises UserError where it has none."""
    table = _table(recording.path)
    t, x = table.times[recording.row].astype(np.float64), table.channels[recording.row]
    if not len(t) or len(t) != len(x) or np.max(x, initial=0) >= CHANNELS:
        raise UserError(f"{recording.path}, recording {recording.row} has no spikes of channels 0 to 699: replace it")
    return sorted_events(x, np.zeros(len(t)), np.rint(t * 1e6), np.ones(len(t)))


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

    The data have one axis of channels; `Spectrogram` says how they become frames.
    """

    def read() -> Split:
        root = find_root(
            "shd", data_dir, ("SHD", "shd", "hsd"), lambda p: (p / "shd_train.h5").is_file(), "shd_train.h5"
        )
        splits = []
        for path in (root / "shd_train.h5", root / "shd_test.h5"):
            labels = _table(path).labels
            check_labels(labels, len(NAMES), path)
            splits.append([Recording(path, int(label), row=row) for row, label in enumerate(labels)])
        return splits[0], splits[1]

    split = read_or_download_with_tonic(read, "SHD", data_dir, download)
    framing = Spectrogram(step, event_size, (CHANNELS, 1), integration, channels=1)
    data = frame_data("shd", split, NAMES, framing, data_dir, cache_dir, _read)
    _table.cache_clear()
    return data
