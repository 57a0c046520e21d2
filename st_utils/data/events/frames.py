"""Turn the events of a recording into frames `[T, 2, H, W]`.

framing = Framing(step=4, size=34, sensor=(34, 34))
framing(read_events(path))               # int64 counts [4, 2, 34, 34], which sum to the number of events
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from st_utils.data.events.files import Events
from st_utils.errors import UserError

Integration = Literal["count", "time"]
Resize = Literal["coordinates", "bilinear", "corners", "nearest"]
INTERPOLATIONS: dict[str, dict[str, Any]] = {
    "bilinear": {"mode": "bilinear", "align_corners": False},  # as torchvision's Resize; SDT and STAtten on CIFAR10-DVS
    "corners": {"mode": "bilinear", "align_corners": True},  # BrainCog
    "nearest": {"mode": "nearest"},  # STAtten on N-Caltech101
}


@dataclass(frozen=True)
class Recording:
    """One sample: a file, or a part of a file, and its label.

    Attributes:
        row: the sample's row in a file of many samples.
        start, stop: the sample has the events with start <= t < stop, in us.
        part: (i, n): the sample is the i-th of n equal spans of the file's time, from 0.
        shift: (columns, rows) that are added to the events' coordinates; events outside the sensor are dropped.
    """

    path: Path
    label: int
    row: int | None = None
    start: int | None = None
    stop: int | None = None
    part: tuple[int, int] | None = None
    shift: tuple[int, int] = (0, 0)

    @property
    def source(self) -> tuple:
        """File and part of it: no two samples of a data set have the same."""
        return str(self.path), self.row, self.start, self.stop, self.part

    def select(self, events: Events) -> Events:
        """Select this sample's events among those of its file. Raises UserError when there are none."""
        start, stop = self.start, self.stop
        if self.part:
            i, n = self.part
            first, length = events.t[0], events.t[-1] + 1 - events.t[0]
            start, stop = first + length * i // n, first + length * (i + 1) // n
        if start is not None:
            events = events[(events.t >= start) & (events.t < stop)]
        if not len(events):
            raise UserError(f"{self.path} has no events from {start} to {stop} us: replace or remove it")
        return events


@dataclass(frozen=True)
class Framing:
    """Settings that turn events into `step` frames of `size` x `size` pixels, one channel per polarity.

    Args:
        sensor: its columns and rows; None: those of each recording's events.
        integration: "count": every frame has N // step of the N events. "time": every frame spans
            (t_N - t_1) // step. The last frame also has the rest. SpikingJelly's split_by "number" and "time".
        resize: "coordinates": column x becomes x * size // width, so that frames sum to the number of events. Else
            frames of the sensor's size are interpolated: "bilinear", "corners" (bilinear with aligned corners) or
            "nearest".
        span: (first, last + 1) of the time that "time" divides by `step`, the same for all recordings; by default each
            recording's own.
        channels: 2, or 1, which adds the polarities up.

    Raises:
        UserError: step or size is below 1.
    """

    step: int
    size: int
    sensor: tuple[int, int] | None
    integration: Integration = "count"
    resize: Resize = "coordinates"
    span: tuple[int, int] | None = None
    channels: int = 2

    def __post_init__(self) -> None:
        if self.step < 1:
            raise UserError(f"step is {self.step}: give at least 1 frame")
        if self.size < 1:
            raise UserError(f"event_size is {self.size}: give a side of at least 1 pixel")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, C, H, W) of the frames."""
        return self.step, self.channels, self.size, self.size

    def frame_index(self, t: np.ndarray) -> np.ndarray:
        """The frame of each event, 0 to step - 1, of events at the times t `[N]` in us, in order."""
        if self.integration == "count":
            frame = np.arange(len(t)) // max(1, len(t) // self.step)
            return np.minimum(frame, self.step - 1) if len(t) >= self.step else np.full(len(t), self.step - 1)
        if self.span:
            return (t - self.span[0]) * self.step // (self.span[1] - self.span[0])
        return np.minimum((t - t[0]) // max(1, (t[-1] - t[0]) // self.step), self.step - 1)

    def __call__(self, events: Events) -> np.ndarray:
        """Count the events per pixel: int64 `[step, channels, size, size]`; float32 where frames are interpolated."""
        width, height = self.sensor or (int(events.x.max()) + 1, int(events.y.max()) + 1)
        frame, channel = self.frame_index(events.t), events.p if self.channels == 2 else 0
        if self.resize != "coordinates":
            counts = count_per_pixel(frame, channel, events.y, events.x, (self.step, self.channels, height, width))
            frames = torch.from_numpy(counts).float()
            size = (self.size, self.size)
            return torch.nn.functional.interpolate(frames, size, **INTERPOLATIONS[self.resize]).numpy()
        return count_per_pixel(
            frame, channel, events.y * self.size // height, events.x * self.size // width, self.shape
        )


def count_per_pixel(
    frame: np.ndarray, channel: Any, y: np.ndarray, x: np.ndarray, shape: tuple[int, int, int, int]
) -> np.ndarray:
    """The number of events at each (frame, channel, y, x) of an array of this shape `[T, C, H, W]`."""
    pixel = ((frame * shape[1] + channel) * shape[2] + y) * shape[3] + x
    return np.bincount(pixel, minlength=int(np.prod(shape))).reshape(shape)
