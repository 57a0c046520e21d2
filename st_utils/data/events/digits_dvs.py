"""The digits as events: scikit-learn's digits before a simulated event camera that makes three saccades.

    data = create("dataset", "digits_dvs", step=4, event_size=32)     # no download
    frames, label = data.train[0]                                     # counts [4, 2, 32, 32]

All arithmetic is in integers, so that the events are the same on every machine.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np

from registry import register
from st_utils.data.base import FrameData
from st_utils.data.events.cache import ArrayFrames
from st_utils.data.events.files import Events, read_events
from st_utils.data.events.frames import Framing, Integration, Resize
from st_utils.data.images.digits import digits

SENSOR = 32  # columns and rows
SCALE = 20  # eighths of a sensor pixel per digit pixel: the 8 digit pixels span 20 of the 32 sensor pixels
CORNERS = ((-3, -3), (0, 3), (3, -3), (-3, -3))  # (right, down) in sensor pixels: a triangle, as in N-MNIST
MOVES, STEP_US = 8, 12_500  # moves per saccade, and microseconds per move: 100 ms per saccade
FULL = 16 * 64 * 64  # light of a white pixel: 16 levels, times weights in 64ths along both axes
DARK, UNIT = 0.15, 4096  # DARK is added to the light to make its logarithm finite, which is counted in 1 / UNIT
THRESHOLD = 2048  # change of log light, in 1 / UNIT, that makes an event


def camera_path() -> list[tuple[int, int]]:
    """The camera's positions (right, down) in eighths of a sensor pixel: MOVES equal moves per side of the triangle."""
    corners = [(8 * x, 8 * y) for x, y in CORNERS]
    places = [corners[0]]
    for (x0, y0), (x1, y1) in pairwise(corners):
        places += [(x0 + (x1 - x0) * i // MOVES, y0 + (y1 - y0) * i // MOVES) for i in range(1, MOVES + 1)]
    return places


def interpolation_weights(shift: int) -> np.ndarray:
    """The weight of each of a row's 8 digit pixels in each sensor pixel, in 64ths, `[SENSOR, 8]`.

    Interpolation is linear; `shift` is the camera's position along this axis, in eighths of a sensor pixel.
    """
    # place of the middle of each sensor pixel on the digit, in 64ths of a digit pixel
    place = (8 * np.arange(SENSOR) + 4 - 4 * SENSOR - shift) * 64 // SCALE + 4 * 64 - 32
    table = np.zeros((SENSOR, 10), dtype=np.int64)  # columns 0 and 9 are the dark margin
    left, part = place // 64, place % 64
    for offset, weight in ((0, 64 - part), (1, part)):
        column = np.clip(left + offset + 1, 0, 9)
        table[np.arange(SENSOR), column] += weight
    return table[:, 1:9]


def saccade_events(images: np.ndarray) -> list[Events]:
    """Simulate the events of images with levels 0 to 16, `[N, 8, 8]`.

    A pixel makes an event when its log light has changed by THRESHOLD since its last event. A change by n thresholds
    within one move makes n events at even distances in time.
    """
    log = np.rint(np.log(DARK + np.arange(FULL + 1) / FULL) * UNIT).astype(np.int64)
    levels = images.astype(np.float64)  # products of integers far below 2^53: exact, and fast
    reference, columns = None, []
    for number, (right, down) in enumerate(camera_path()):
        rows, cols = interpolation_weights(down).astype(np.float64), interpolation_weights(right).astype(np.float64)
        light = log[np.rint(rows @ levels @ cols.T).astype(np.int64)]
        if reference is None:
            reference = light
            continue
        change = light - reference
        count = np.abs(change) // THRESHOLD
        reference = reference + np.sign(change) * count * THRESHOLD
        image, y, x = np.nonzero(count)
        repeats, on = count[image, y, x], change[image, y, x] > 0
        order = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        t = (number - 1) * STEP_US + (order + 1) * STEP_US // (np.repeat(repeats, repeats) + 1)
        columns.append([np.repeat(column, repeats) for column in (image, x, y, on.astype(np.int64))] + [t])
    image, x, y, p, t = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    order = np.lexsort((t, image))
    ends = np.searchsorted(image[order], np.arange(len(images) + 1))
    both = Events(*(column[order] for column in (x, y, t, p)))
    return [both[start:end] for start, end in pairwise(ends)]


@lru_cache(maxsize=2)  # simulating takes a second or two
def _frames(framing: Framing) -> tuple[np.ndarray, np.ndarray]:
    """The frames of the training and the test digits, `[N, T, 2, H, W]`."""
    still, found = digits(), []
    for split in (still.train, still.test):
        levels = np.rint(split.images * (16 / 255)).astype(np.int64)
        frames = np.stack([framing(events) for events in saccade_events(levels)])
        found.append(frames.astype(np.uint8) if frames.dtype.kind == "i" and frames.max() < 256 else frames)
    return tuple(found)


@register.dataset("digits_dvs", aliases=("dvs_digits", "digitsdvs"), source="this project; digits: UCI, 1998")
def digits_dvs(
    step: int = 4,
    event_size: int = SENSOR,
    integration: Integration = "count",
    resize: Resize = "coordinates",
) -> FrameData:
    """The digits before a simulated event camera, 32x32, three saccades of 100 ms, 1,438 + 359; embedded.

    Its test recordings show the test images of `digits`, which `digits` does not train on.
    """
    still = digits()
    framing = Framing(step, event_size, (SENSOR, SENSOR), integration, resize)
    splits = [
        ArrayFrames(frames, split.targets, split.made_of)
        for frames, split in zip(_frames(framing), (still.train, still.test), strict=True)
    ]
    return FrameData(
        "digits_dvs",
        *splits,
        num_classes=10,
        in_channels=2,
        img_size=event_size,
        mean=(0.0, 0.0),
        std=(1.0, 1.0),
        class_names=still.class_names,
        step=step,
        read_frames=lambda path: framing(read_events(path, (SENSOR, SENSOR))),
    )
