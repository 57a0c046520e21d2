"""Spiking Heidelberg Digits, from small files."""

from __future__ import annotations

import numpy as np
import pytest

from st_utils.errors import UserError

from .loading import load
from .writers import write_shd


def test_shd(tmp_path):
    write_shd(tmp_path / "shd_train.h5", [0, 19, 7])
    write_shd(tmp_path / "shd_test.h5", [3])
    data = load("shd(event_size=8)", tmp_path, step=5)
    assert data.train.targets.tolist() == [0, 19, 7] and (data.num_classes, data.in_channels) == (20, 1)
    frames = data.train[0][0]
    assert frames.shape == (5, 1, 8, 8) and frames.sum() == 50 == data.train.events[0]


def test_shd_bins_by_hand(tmp_path):
    """One channel of each quarter, evenly in time: 8 spikes in 2 frames of 4 rows and 4 columns."""
    from st_utils.data.events.files import sorted_events
    from st_utils.data.events.shd import Spectrogram

    events = sorted_events(np.tile([0, 175, 350, 699], 2), np.zeros(8), np.arange(8) * 1000, np.ones(8))
    for integration in ("count", "time"):
        frames = Spectrogram(2, 4, (700, 1), integration, channels=1)(events)
        assert frames[:, 0].tolist() == [np.eye(4).tolist()] * 2


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:2000]), r"shd_test\.h5 can't be read as SHD's HDF5 file"),
        (lambda p: write_shd(p, [20]), r"shd_test\.h5 has the label 20, but there are 20 classes"),
        (
            lambda p: write_shd(p, [1], units=[700] * 50),
            r"shd_test\.h5, recording 0 has no spikes of channels 0 to 699",
        ),
    ],
    ids=["cut", "label", "channel"],
)
def test_shd_faults(tmp_path, fault, message):
    for split in ("train", "test"):
        write_shd(tmp_path / f"shd_{split}.h5", [1])
    fault(tmp_path / "shd_test.h5")
    with pytest.raises(UserError, match=message):
        load("shd", tmp_path)
    assert len(list((tmp_path / ".cache").glob("shd-test*"))) == 0
