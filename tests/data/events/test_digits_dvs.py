import hashlib

import numpy as np
import pytest

from registry import create
from st_utils.data import build_loaders, check_pair
from st_utils.data.events.digits_dvs import (
    DARK,
    FULL,
    THRESHOLD,
    UNIT,
    camera_path,
    interpolation_weights,
    saccade_events,
)
from st_utils.data.events.frames import Framing

# Results on digits_dvs are comparable only while this holds; the arithmetic is in integers, so it holds everywhere.
FRAMES = "4de441a6b077d6543faec17b69a344a963cc86e4930cba53d0bc6bad26ab9d2a"


@pytest.fixture(scope="module")
def data():
    return create("dataset", "digits_dvs", step=4)


def test_frames_never_change(data):
    frames = np.concatenate([data.train.frames, data.test.frames])
    assert frames.shape == (1797, 4, 2, 32, 32) and frames.dtype == np.uint8
    assert hashlib.sha256(frames.tobytes()).hexdigest() == FRAMES


def test_split_is_that_of_the_digits(data):
    digits = create("dataset", "digits")
    assert np.array_equal(data.train.targets, digits.train.targets)
    assert np.array_equal(data.test.targets, digits.test.targets)
    train, test = ({frames.tobytes() for frames in split.frames} for split in (data.train, data.test))
    assert not train & test
    check_pair(digits, data)
    assert np.array_equal(data.test.made_of[0], digits.test.images)  # of which digits trains on none
    assert not {image.tobytes() for image in digits.train.images} & {image.tobytes() for image in digits.test.images}


def test_the_camera_goes_round_a_triangle():
    places = camera_path()
    assert len(places) == 25 and places[0] == places[-1] == (-24, -24)
    assert (0, 24) in places and (24, -24) in places


def test_weights_are_an_interpolation():
    """Over the digit every pixel's weights sum to 64; the middle of the digit is in the middle of the sensor."""
    table = interpolation_weights(0)
    assert table.shape == (32, 8) and (table.sum(1)[8:24] == 64).all() and not table[:4].any()
    assert np.array_equal(table, table[::-1, ::-1]) or abs(table - table[::-1, ::-1]).max() <= 2
    assert np.array_equal(interpolation_weights(8)[1:], table[:-1])  # a shift by one sensor pixel


def test_an_even_picture_makes_events_at_its_edges_only():
    (dark,) = saccade_events(np.zeros((1, 8, 8), np.int64))
    assert len(dark) == 0
    (white,) = saccade_events(np.full((1, 8, 8), 16))
    assert len(white) and not ((white.x > 11) & (white.x < 20) & (white.y > 11) & (white.y < 20)).any()


def test_events_follow_the_light():
    """At every pixel, ON less OFF events times the threshold are about the change of log light."""
    image = np.zeros((1, 8, 8), np.int64)
    image[0, 2:6, 3] = 16
    (events,) = saccade_events(image)
    net = np.zeros((32, 32))
    np.add.at(net, (events.y, events.x), 2 * events.p - 1)
    assert (net == 0).all()  # the camera comes back to where it started
    half = events[events.t < 12 * 12_500]
    net[:] = 0
    np.add.at(net, (half.y, half.x), 2 * half.p - 1)

    def log_light(place):
        right, down = place
        seen = interpolation_weights(down) @ image[0] @ interpolation_weights(right).T
        return np.log(DARK + seen / FULL) * UNIT

    change = log_light(camera_path()[12]) - log_light(camera_path()[0])
    assert np.abs(net * THRESHOLD - change).max() < 2 * THRESHOLD and np.abs(net).max() >= 2
    clear = np.abs(change) > 2 * THRESHOLD
    assert clear.any() and (np.sign(net[clear]) == np.sign(change[clear])).all()


def test_times_run_through_three_saccades_of_100_ms():
    events = saccade_events(np.random.RandomState(0).randint(0, 17, (3, 8, 8)))
    for each in events:
        assert (np.diff(each.t) >= 0).all() and each.t[0] >= 0 and 287_500 < each.t[-1] < 300_000


def test_step_size_and_integration():
    small = create("dataset", "digits_dvs(step=6, event_size=16, integration=time)")
    assert small.train.frames.shape == (1438, 6, 2, 16, 16) and small.img_size == 16
    events = saccade_events(np.rint(create("dataset", "digits").train.images[:2] * (16 / 255)).astype(np.int64))
    assert [small.train.frames[i].sum() for i in range(2)] == [len(e) for e in events]
    assert np.array_equal(Framing(6, 16, (32, 32), "time")(events[1]), small.train.frames[1])


def test_batches(data):
    train, test = build_loaders(data, None, 64, event_augment="hflip")
    inputs, labels = next(iter(train))
    assert inputs.shape == (64, 4, 2, 32, 32) and labels.shape == (64,)
    assert sum(len(labels) for _, labels in test) == 359
