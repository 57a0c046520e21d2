"""Find the recordings of an event data set, and split them into training and test.

recordings = recordings_by_class(Path("data/Train"), {"cars": 1, "background": 0})
train, test = hold_out(recordings, holdout=5, name="event_folder")
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from st_utils.data.checked_files import read_or_download
from st_utils.data.events.files import PARSERS
from st_utils.data.events.frames import Recording
from st_utils.errors import UserError

Data = TypeVar("Data")
Split = tuple[list[Recording], list[Recording]]  # training, test


def find_root(name: str, data_dir: str, places: Sequence[str], holds: Callable[[Path], bool], what: str) -> Path:
    """`data_dir`, or the first of `places` below it, that `holds` the data. Raises UserError: `what` is missing."""
    root = Path(data_dir).expanduser()
    for place in (".", *places):
        if (root / place).is_dir() and holds(root / place):
            return root / place
    others = f" (looked in {', '.join(places)} there too)" if places else ""
    raise UserError(f"{name}: {root} does not hold {what}{others}: pass --data-dir DIR where DIR holds it")


def natural_key(path: Path) -> list[tuple[bool, int | str]]:
    """A sorting key with which 2.bin comes before 10.bin."""
    return [(part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"(\d+)", path.name)]


def event_files(folder: Path, suffixes: Iterable[str] = tuple(PARSERS)) -> list[Path]:
    """The event files in a folder, not those in its subfolders, in natural order."""
    wanted = tuple(suffixes)
    return sorted((p for p in folder.iterdir() if p.suffix in wanted and not p.name.startswith(".")), key=natural_key)


def class_folders(folder: Path) -> list[Path]:
    """The subfolders of a folder, in natural order, without hidden ones."""
    return sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural_key)


def recordings_by_class(
    folder: Path, labels: Mapping[str, int], suffixes: Iterable[str] = tuple(PARSERS)
) -> list[Recording]:
    """The recordings in a folder of class folders, sorted by label, then by file name.

    `labels` maps the class folders' names to labels. A class may be absent, as in a part of a data set. Raises
    UserError for a folder that is no class, for a class folder without event files, and when there is no class folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}/ is missing: pass --data-dir DIR where DIR holds it")
    recordings = []
    for place in class_folders(folder):
        if place.name not in labels:
            names = list(labels)
            raise UserError(f"{place}/ is no class: the {len(names)} classes are {names[0]} to {names[-1]}")
        files = event_files(place, suffixes)
        if not files:
            raise UserError(f"{place}/ has no event files ({', '.join(suffixes)}): add some, or remove it")
        recordings += [Recording(path, labels[place.name]) for path in files]
    if not recordings:
        raise UserError(f"{folder}/ must hold one folder of event files for each class: there is none")
    return sorted(recordings, key=lambda recording: recording.label)


def subfolder(root: Path, *names: str) -> Path | None:
    """The first of these subfolders that exists, or None."""
    return next((root / name for name in names if (root / name).is_dir()), None)


def numbered_labels(count: int, first: int = 0) -> dict[str, int]:
    """The labels of class folders named `first`, `first` + 1, ...: {"1": 0, "2": 1} for count=2, first=1."""
    return {str(i + first): i for i in range(count)}


def split_in_time(labelled: Sequence[tuple[Path, int]], parts: int, name: str) -> Split:
    """Cut files, one for each class, into `parts` equal spans of time; every fifth span is for testing."""
    if parts < 5:
        raise UserError(f"{name}: parts is {parts}: give 5 (the last is for testing) or more")
    train, test = [], []
    for path, label in labelled:
        for i in range(parts):
            (test if i % 5 == 4 else train).append(Recording(path, label, part=(i, parts)))
    return train, test


def hold_out(recordings: Sequence[Recording], holdout: int, name: str) -> Split:
    """Hold out every `holdout`-th recording of a class for testing; the others are for training."""
    if holdout < 2:
        raise UserError(f"{name}: holdout is {holdout}: give 2 (every second recording is for testing) or more")
    train, test, count = [], [], {}
    for recording in recordings:
        count[recording.label] = number = count.get(recording.label, 0) + 1
        (train if number % holdout else test).append(recording)
    few = [r.path.parent for r in recordings if count[r.label] < holdout]
    if few:
        raise UserError(f"{few[0]}/ has fewer than {holdout} recordings: add some, or lower holdout")
    return train, test


def read_or_download_with_tonic(
    read: Callable[[], Data], tonic_class: str, data_dir: str, download: bool, splits: bool = True
) -> Data:
    """Return `read()`; with `download`, let tonic's class of this name download what is missing first.

    `splits`: the class takes `train`, for the archives of its two splits.
    """

    def source(root: str, *, download: bool) -> None:
        import tonic  # slow to import

        for chosen in ({"train": True}, {"train": False}) if splits else ({},):
            getattr(tonic.datasets, tonic_class)(root, **chosen)

    source.__name__ = tonic_class
    return read_or_download(read, source, data_dir, tonic_class, download)
