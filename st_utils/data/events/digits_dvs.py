"""The embedded event data set: scikit-learn's digits seen by a simulated event camera that makes three saccades.

All arithmetic is in integers, so that the events are the same on every machine.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from registry import register
from st_utils.data.base import FrameData
from st_utils.data.events.cache import ArrayFrames
from st_utils.data.events.files import Events
from st_utils.data.events.frames import Framing, Integration, Resize
from st_utils.data.images.digits import digits

SENSOR = 32  # columns and rows
SCALE = 20  # sensor pixels, in eighths, for one of the digit's: 8 pixels span 20 of the sensor's 32
CORNERS = ((-3, -3), (0, 3), (3, -3), (-3, -3))  # (right, down) in sensor pixels: a triangle, as for N-MNIST
MOVES, STEP_US = 8, 12_500  # steps of a saccade, and the time that one takes: 100 ms a saccade
FULL = 16 * 64 * 64  # a white pixel: 16 levels, weights in 64ths both ways
DARK, UNIT = 0.15, 4096  # added to the light, so that its logarithm is finite; what 1 is in integers
THRESHOLD = 2048  # the change of log light, in 1 / UNIT, that makes an event


def path() -> list[tuple[int, int]]:
    """The camera's positions in eighths of a pixel: MOVES equal steps along each side of the triangle."""
    points = [(8 * x, 8 * y) for x, y in CORNERS]
    places = [points[0]]
    for (x0, y0), (x1, y1) in pairwise(points):
        places += [(x0 + (x1 - x0) * i // MOVES, y0 + (y1 - y0) * i // MOVES) for i in range(1, MOVES + 1)]
    return places


def weights(shift: int) -> np.ndarray:
    """[SENSOR, 8]: what each pixel of a row sees of the digit's 8, in 64ths, by linear interpolation."""
    # the middle of sensor pixel i, in eighths from the middle of the sensor, less the shift, in 64ths of a digit pixel
    place = (8 * np.arange(SENSOR) + 4 - 4 * SENSOR - shift) * 64 // SCALE + 4 * 64 - 32
    table = np.zeros((SENSOR, 10), dtype=np.int64)  # dark around
    left, part = place // 64, place % 64
    for offset, weight in ((0, 64 - part), (1, part)):
        column = np.clip(left + offset + 1, 0, 9)
        table[np.arange(SENSOR), column] += weight
    return table[:, 1:9]


def saccade_events(images: np.ndarray) -> list[Events]:
    """The events of each image, levels 0..16 [N, 8, 8]: log light of a pixel that moved by THRESHOLD since its last.

    Changes of several thresholds make as many events, spread evenly over the step.
    """
    log = np.rint(np.log(DARK + np.arange(FULL + 1) / FULL) * UNIT).astype(np.int64)
    levels = images.astype(np.float64)  # products of integers far below 2^53: exact, and fast
    reference, columns = None, []
    for number, (right, down) in enumerate(path()):
        rows, cols = weights(down).astype(np.float64), weights(right).astype(np.float64)
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


@register.dataset("digits_dvs", aliases=("dvs_digits", "digitsdvs"), source="this project; digits: UCI, 1998")
def digits_dvs(
    step: int = 4,
    event_size: int = SENSOR,
    integration: Integration = "count",
    resize: Resize = "coordinates",
) -> FrameData:
    """The digits as events of a simulated camera, 32x32, three saccades of 100 ms, 1,438 + 359; embedded."""
    still = digits()
    framing = Framing(step, event_size, (SENSOR, SENSOR), integration, resize)
    splits = []
    for split in (still.train, still.test):
        levels = np.rint(split.images * (16 / 255)).astype(np.int64)
        frames = np.stack([framing(events) for events in saccade_events(levels)])
        narrow = frames.astype(np.uint8) if frames.dtype.kind == "i" and frames.max() < 256 else frames
        splits.append(ArrayFrames(narrow, split.targets, split.made_of))
    return FrameData("digits_dvs", *splits, 10, 2, event_size, (0.0, 0.0), (1.0, 1.0), still.class_names, step=step)
