from itertools import pairwise

import numpy as np
import pytest
import torch

from st_utils.data.events.files import Events, read_events, sorted_events
from st_utils.data.events.frames import Framing, Recording
from st_utils.errors import UserError

from .writers import some_events


def made(count: int = 500, side: int = 16, seed: int = 0) -> Events:
    return sorted_events(**some_events(count, side, side, seed))


# -- integration -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 4, 7, 16])
@pytest.mark.parametrize(("ours", "theirs"), [("count", "number"), ("time", "time")])
def test_frames_are_spikingjellys(ours, theirs, step, spikingjelly_utils):
    for seed in range(3):
        events = made(501 + seed, seed=seed)
        columns = {name: getattr(events, name) for name in "xytp"}
        expected = spikingjelly_utils.integrate_events_by_fixed_frames_number(columns, theirs, step, 16, 16)
        assert np.array_equal(Framing(step, 16, (16, 16), ours)(events), expected)


def test_frames_are_spikingjellys_on_a_real_recording(real_data, spikingjelly_utils):
    events = read_events(real_data / "dvs128_gesture" / "4.bs2")
    columns = {name: getattr(events, name) for name in "xytp"}
    for ours, theirs in (("count", "number"), ("time", "time")):
        expected = spikingjelly_utils.integrate_events_by_fixed_frames_number(columns, theirs, 10, 128, 128)
        assert np.array_equal(Framing(10, 128, (128, 128), ours)(events), expected)


def test_by_count_and_by_time_by_hand():
    """Seven events at 0, 1, 2, 3, 50, 98, 99 us in three frames."""
    t = np.array([0, 1, 2, 3, 50, 98, 99])
    assert Framing(3, 4, (4, 4), "count").frame_index(t).tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert Framing(3, 4, (4, 4), "time").frame_index(t).tolist() == [0, 0, 0, 0, 1, 2, 2]
    assert Framing(4, 4, (4, 4), "time", span=(0, 100)).frame_index(t).tolist() == [0, 0, 0, 0, 2, 3, 3]
    assert (
        Framing(9, 4, (4, 4), "count").frame_index(t).tolist() == [8] * 7
    )  # fewer events than frames: as SpikingJelly
    assert Framing(9, 4, (4, 4), "time").frame_index(np.array([5, 5])).tolist() == [0, 0]


def test_a_frame_by_hand():
    events = sorted_events(np.array([0, 3, 3, 2]), np.array([0, 1, 1, 3]), np.arange(4), np.array([1, 0, 0, 1]))
    frames = Framing(2, 2, (4, 4), "count")(events)
    assert frames.tolist() == [[[[0, 1], [0, 0]], [[1, 0], [0, 0]]], [[[0, 1], [0, 0]], [[0, 0], [0, 1]]]]


@pytest.mark.parametrize("size", [1, 5, 16, 40])
@pytest.mark.parametrize("integration", ["count", "time"])
def test_frames_sum_to_the_number_of_events(integration, size):
    assert Framing(6, size, (16, 16), integration)(made(777)).sum() == 777
    assert Framing(6, size, None, integration)(made(777)).sum() == 777


@pytest.mark.parametrize("size", [8, 9, 20])
def test_interpolations_are_torchvisions_and_brain_cogs(size):
    from torchvision.transforms import InterpolationMode, Resize

    frames = torch.from_numpy(Framing(3, 16, (16, 16))(made())).float()
    bilinear = Resize((size, size), antialias=False)(frames)
    nearest = Resize((size, size), InterpolationMode.NEAREST)(frames)
    corners = torch.nn.functional.interpolate(frames, size=[size, size], mode="bilinear", align_corners=True)
    for name, expected in (("bilinear", bilinear), ("nearest", nearest), ("corners", corners)):
        resized = Framing(3, size, (16, 16), resize=name)(made())
        assert np.array_equal(resized, expected.numpy()) and resized.dtype == np.float32


def test_halved_frames_by_hand():
    """Four events of a 2 x 2 sensor become one pixel: their sum, or their mean."""
    events = sorted_events(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1]), np.arange(4), np.ones(4))
    assert Framing(1, 1, (2, 2))(events)[0, 1].item() == 4
    assert Framing(1, 1, (2, 2), resize="bilinear")(events)[0, 1].item() == 1


@pytest.mark.parametrize(("wrong", "message"), [((0, 8), "step is 0"), ((4, 0), "event_size is 0")])
def test_settings_out_of_range(wrong, message):
    with pytest.raises(UserError, match=message):
        Framing(*wrong, (16, 16))


# -- parts of a recording ----------------------------------------------------------------------------------


def test_parts_hold_every_event_once(tmp_path):
    events = made(999)
    parts = [Recording(tmp_path / "a.bin", 0, part=(i, 7)).select(events) for i in range(7)]
    assert sum(len(part) for part in parts) == 999
    assert all(a.t[-1] < b.t[0] for a, b in pairwise(parts))
    assert max(int(part.t[-1] - part.t[0]) for part in parts) <= -(-300_000 // 7)


def test_a_span_without_events(tmp_path):
    with pytest.raises(UserError, match=r"a\.bin has no events from 900000 to 950000 us"):
        Recording(tmp_path / "a.bin", 0, start=900_000, stop=950_000).select(made())


# -- the cache ---------------------------------------------------------------------------------------------
