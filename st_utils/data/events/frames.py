"""From the events of a recording to frames [T, 2, H, W]."""

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
    "bilinear": {"mode": "bilinear", "align_corners": False},  # torchvision's Resize: SDT and STAtten on CIFAR10-DVS
    "corners": {"mode": "bilinear", "align_corners": True},  # BrainCog
    "nearest": {"mode": "nearest"},  # STAtten on N-Caltech101
}


@dataclass(frozen=True)
class Recording:
    """One sample: a file, or a part of one, and its label.

    row: its row in a file of many. start, stop: the times that it spans, stop left out. part: (i, n), the i-th of n
    equal spans of time. shift: columns and rows to add; what leaves the sensor is dropped.
    """

    path: Path
    label: int
    row: int | None = None
    start: int | None = None
    stop: int | None = None
    part: tuple[int, int] | None = None
    shift: tuple[int, int] = (0, 0)

    @property
    def place(self) -> tuple:
        """What tells this sample from every other."""
        return str(self.path), self.row, self.start, self.stop, self.part

    def cut(self, events: Events) -> Events:
        """Its own events of the file's. Raises UserError when there are none."""
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
    """How the events of a recording become `step` frames of `size` x `size`, one channel a polarity.

    integration: "count": every frame has N // step of the N events, "time": it spans (t_N - t_1) // step; the last
        frame also takes the rest (SpikingJelly's split_by "number" and "time"). With `span` (first, last + 1) the
        time is divided by that, the same for every recording.
    resize: "coordinates": column x becomes x * size // width, so that frames sum to the number of events;
        else frames of the sensor's size are interpolated: "bilinear", "corners" (bilinear, corners aligned), "nearest".
    sensor: columns and rows; None takes each recording's own extent.
    channels: 1 adds the polarities up.
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
        return self.step, self.channels, self.size, self.size

    def frame_of(self, t: np.ndarray) -> np.ndarray:
        """The number of each event's frame."""
        if self.integration == "count":
            frame = np.arange(len(t)) // max(1, len(t) // self.step)
            return np.minimum(frame, self.step - 1) if len(t) >= self.step else np.full(len(t), self.step - 1)
        if self.span:
            return (t - self.span[0]) * self.step // (self.span[1] - self.span[0])
        return np.minimum((t - t[0]) // max(1, (t[-1] - t[0]) // self.step), self.step - 1)

    def __call__(self, events: Events) -> np.ndarray:
        """Counts int64 [step, channels, size, size]; float32 when they are interpolated."""
        width, height = self.sensor or (int(events.x.max()) + 1, int(events.y.max()) + 1)
        frame, channel = self.frame_of(events.t), events.p if self.channels == 2 else 0
        if self.resize != "coordinates":
            counts = _count(frame, channel, events.y, events.x, (self.step, self.channels, height, width))
            frames = torch.from_numpy(counts).float()
            size = (self.size, self.size)
            return torch.nn.functional.interpolate(frames, size, **INTERPOLATIONS[self.resize]).numpy()
        return _count(frame, channel, events.y * self.size // height, events.x * self.size // width, self.shape)


def _count(frame: np.ndarray, channel: Any, y: np.ndarray, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    place = ((frame * shape[1] + channel) * shape[2] + y) * shape[3] + x
    return np.bincount(place, minlength=int(np.prod(shape))).reshape(shape)
