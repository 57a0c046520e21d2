"""N-Omniglot: the strokes of Omniglot's drawings as videos before a DAVIS346, 346 x 260 pixels.

data = create("dataset", "nomniglot", data_dir="data", step=12)    # data/NOmniglot/dvs_background/..., ...
frames, label = data.train[0]                                      # counts [12, 2, 28, 28]
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from registry import register
from st_utils.data.base import FrameData
from st_utils.data.events.files import Events, read_events
from st_utils.data.events.frames import INTERPOLATIONS, Framing, Integration, Recording, Resize, count_per_pixel
from st_utils.data.events.scan import find_root
from st_utils.data.events.sets import frame_data
from st_utils.data.paired.alphabets import (
    DRAWINGS,
    TRAIN_DRAWINGS,
    Character,
    character_of,
    check_drawings,
    drawing_number,
    is_hidden,
    object_name,
    ordered_characters,
)
from st_utils.errors import UserError

DataType = Literal["count", "event", "frequency"]
SENSOR = (346, 260)
LEFT, TOP, SIDE = 54, 4, 250  # the part of the sensor that the authors keep, in which the drawing is
PLACES = ("NOmniglot", "nomniglot", "N-Omniglot", "DVS/NOmniglot")
RAW = ("dvs_background", "dvs_background_1", "dvs_background_2", "dvs_evaluation")  # the first set is also given in two
CUT = ("events_npy/background", "events_npy/evaluation")  # what BrainCog's loader makes of them


@dataclass(frozen=True)
class DrawingFraming(Framing):
    """Settings that turn the events of a drawing into `step` frames of the middle 250 x 250 pixels.

    Args:
        data_type: "count"; or, as in BrainCog's loader, "event": 1 where a pixel has any event, or "frequency": the
            counts divided by the largest count of the frame's polarity. The latter two need an interpolating
            `resize`, "bilinear" in that loader. It divides by the frame's microseconds first and rounds to float16,
            which changes a frame whose counts are small.
    """

    data_type: DataType = "count"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data_type != "count" and self.resize == "coordinates":
            raise UserError(f"data_type={self.data_type} needs resize=bilinear, corners or nearest: add one of them")

    def __call__(self, events: Events) -> np.ndarray:
        frame = self.frame_index(events.t)
        if self.resize == "coordinates":
            x, y = events.x - LEFT, events.y - TOP
            inside = (x >= 0) & (x < SIDE) & (y >= 0) & (y < SIDE)
            x, y = (column[inside] * self.size // SIDE for column in (x, y))
            return count_per_pixel(frame[inside], events.p[inside], y, x, self.shape)
        values = count_per_pixel(frame, events.p, events.y, events.x, (self.step, 2, SENSOR[1], SENSOR[0]))
        if self.data_type == "event":
            values = values > 0
        elif self.data_type == "frequency":
            values = values / np.maximum(values.max((2, 3), keepdims=True), 1)
        middle = torch.from_numpy(values[:, :, TOP : TOP + SIDE, LEFT : LEFT + SIDE].astype(np.float32))
        return torch.nn.functional.interpolate(middle, (self.size, self.size), **INTERPOLATIONS[self.resize]).numpy()


def _character_folders(root: Path, places: tuple[str, ...]) -> Iterator[tuple[Character, Path]]:
    """The characters' folders <place>/<alphabet>/characterNN."""
    for place in places:
        for folder in sorted((root / place).glob("*/*")):
            if folder.is_dir() and not is_hidden(folder.name) and not is_hidden(folder.parent.name):
                yield character_of(folder.parent.name, folder.name, f"{folder}/"), folder


def _files(folder: Path, *suffixes: str) -> list[Path]:
    """The files of these suffixes in a folder, sorted by name, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.suffix in suffixes and not is_hidden(path.name))


def times_in(table: Path) -> list[tuple[int, int]]:
    """The start and the end, in us, of each of the 20 drawings in a character's CSV file, after a line of headings."""
    try:
        with open(table, newline="") as file:
            rows = list(csv.reader(file))[1:]
        times = [(int(row[1]), int(row[2])) for row in rows if row]
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise UserError(
            f"{table} is damaged, want a number, a start and an end per line ({error}): replace it"
        ) from None
    if len(times) != DRAWINGS or not all(start < end for start, end in times):
        raise UserError(f"{table} has {len(times)} lines, not {DRAWINGS} with a start before the end: replace it")
    return times


def _raw(folder: Path) -> Iterator[tuple[int, Recording]]:
    """The drawings' numbers and recordings in a folder NNNN.aedat4, NNNN.csv."""
    recordings, tables = _files(folder, ".aedat4"), _files(folder, ".csv")
    if len(recordings) != 1 or len(tables) != 1:
        raise UserError(
            f"{folder}/ has {len(recordings)} .aedat4 and {len(tables)} .csv files, not one of each: unpack it again"
        )
    for number, (start, stop) in enumerate(times_in(tables[0]), 1):
        yield number, Recording(recordings[0], -1, row=number - 1, start=start, stop=stop)


def _cut(folder: Path) -> Iterator[tuple[int, Recording]]:
    """The drawings' numbers and recordings in a folder of files NNNN_NN.npy or .npz."""
    for path in _files(folder, ".npy", ".npz"):
        yield drawing_number(path.stem, path), Recording(path, -1)


class Labelled(NamedTuple):
    """A drawing's recording, the character that it is of, and the drawing's number, 1 to 20."""

    recording: Recording
    character: Character
    number: int


def _found(data_dir: str) -> tuple[list[Labelled], list[Character]]:
    """All recordings, sorted by label and number, and the characters in the order of their labels."""

    def holds(place: Path) -> bool:
        return any((place / name).is_dir() for name in (*RAW, *CUT))

    root = find_root(
        "nomniglot", data_dir, PLACES, holds, "dvs_background/ and dvs_evaluation/ (figshare 16821427), or events_npy/"
    )
    raw = any((root / name).is_dir() for name in RAW)
    recordings_in = _raw if raw else _cut
    found = [
        Labelled(recording, character, number)
        for character, folder in _character_folders(root, RAW if raw else CUT)
        for number, recording in recordings_in(folder)
    ]
    if not found:
        raise UserError(f"nomniglot: {root} has no recordings in <alphabet>/characterNN/: unpack it again")
    check_drawings([(character, number) for _, character, number in found], "nomniglot", root)
    characters = ordered_characters({character for _, character, _ in found}, "nomniglot", root)
    labels = {character: label for label, character in enumerate(characters)}
    found = [item._replace(recording=replace(item.recording, label=labels[item.character])) for item in found]
    return sorted(found, key=lambda item: (item.recording.label, item.number)), characters


@register.dataset(
    "nomniglot",
    aliases=("NOmniglot", "nomni", "n_omniglot", "N_Omniglot"),
    source="Li et al., Scientific Data 9:746, 2022, arXiv:2112.13230",
)
def nomniglot(
    data_dir: str = "data",
    cache_dir: str | None = None,
    step: int = 12,
    event_size: int = 28,
    integration: Integration = "time",
    resize: Resize = "coordinates",
    data_type: DataType = "count",
) -> FrameData:
    """N-Omniglot: 1,623 characters of 50 alphabets, 15 + 5 recordings of their drawing each; or some alphabets.

    `dvs_background/<alphabet>/characterNN/NNNN.aedat4` with 20 drawings, whose times are in `NNNN.csv`, likewise
    `dvs_evaluation`; or `events_npy/background/<alphabet>/characterNN/NNNN_NN.npy`, as BrainCog's loader cuts them
    (read without running the pickles in them). Labels and split are those of `omniglot`: drawings 01 to 15 are for
    training, 16 to 20 for testing. The authors train on `data_type=frequency, resize=bilinear`, see `DrawingFraming`.
    """
    found, characters = _found(data_dir)
    names = {item.recording.source: object_name(item.character, item.number) for item in found}
    split = (
        [item.recording for item in found if item.number <= TRAIN_DRAWINGS],
        [item.recording for item in found if item.number > TRAIN_DRAWINGS],
    )
    framing = DrawingFraming(step, event_size, SENSOR, integration, resize, data_type=data_type)
    read_once = lru_cache(maxsize=1)(read_events)  # drawings of the same file follow one another

    def read(recording: Recording) -> Events:
        return recording.select(read_once(recording.path, SENSOR))

    classes = tuple(map(str, characters))
    return frame_data(
        "nomniglot", split, classes, framing, data_dir, cache_dir, read, lambda recording: names[recording.source]
    )
