"""Finding the recordings of an event data set: by class folder, by file name, whole or in parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from st_utils.data.events.files import PARSERS
from st_utils.data.events.frames import Recording
from st_utils.errors import UserError


def find_root(name: str, data_dir: str, places: Sequence[str], holds: Callable[[Path], bool], what: str) -> Path:
    """The first of `places` under `data_dir` that `holds` the data; UserError, saying `what` is looked for."""
    root = Path(data_dir).expanduser()
    for place in (".", *places):
        if (root / place).is_dir() and holds(root / place):
            return root / place
    looked = f" (looked in {', '.join(places)} there too)" if places else ""
    raise UserError(f"{name}: {root} does not hold {what}{looked}: pass --data-dir DIR where DIR holds it")


def natural(path: Path) -> list:
    """A sorting key by which 2.bin comes before 10.bin."""
    return [(part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"(\d+)", path.name)]


def files_in(folder: Path, suffixes: Iterable[str] = tuple(PARSERS)) -> list[Path]:
    """The event files right in a folder, in natural order."""
    wanted = tuple(suffixes)
    return sorted((p for p in folder.iterdir() if p.suffix in wanted and not p.name.startswith(".")), key=natural)


def class_folders(folder: Path) -> list[Path]:
    return sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=natural)


def by_class(folder: Path, labels: Mapping[str, int], suffixes: Iterable[str] = tuple(PARSERS)) -> list[Recording]:
    """The recordings of class folders, by label and number.

    labels: of the folders' names; a class may be absent (a part of a data set), but not empty.
    Raises UserError for a folder of no class, for one without event files, and when there is none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}/ is missing: pass --data-dir DIR where DIR holds it")
    found = []
    for place in class_folders(folder):
        if place.name not in labels:
            names = list(labels)
            raise UserError(f"{place}/ is no class: the {len(names)} classes are {names[0]} to {names[-1]}")
        files = files_in(place, suffixes)
        if not files:
            raise UserError(f"{place}/ has no event files ({', '.join(suffixes)}): add some, or remove it")
        found += [Recording(path, labels[place.name]) for path in files]
    if not found:
        raise UserError(f"{folder}/ must hold one folder of event files for each class: there is none")
    return sorted(found, key=lambda recording: recording.label)


def subfolder(root: Path, *names: str) -> Path | None:
    """The first of these folders that is there."""
    return next((root / name for name in names if (root / name).is_dir()), None)


def numbered(count: int, first: int = 0) -> dict[str, int]:
    """Labels of folders that are named by number, from `first` on."""
    return {str(i + first): i for i in range(count)}


def in_parts(labelled: Sequence[tuple[Path, int]], parts: int, name: str) -> tuple[list[Recording], list[Recording]]:
    """Recordings that each are all there is of a class: `parts` equal spans of time, every fifth for testing."""
    if parts < 5:
        raise UserError(f"{name}: parts is {parts}: give 5 (the last is for testing) or more")
    train, test = [], []
    for path, label in labelled:
        for i in range(parts):
            (test if i % 5 == 4 else train).append(Recording(path, label, part=(i, parts)))
    return train, test


def hold_out(recordings: Sequence[Recording], holdout: int, name: str) -> tuple[list[Recording], list[Recording]]:
    """Every `holdout`-th recording of a class is for testing."""
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


def fetched(read: Callable[[], Any], tonic_class: str, data_dir: str, download: bool, splits: bool = True) -> Any:
    """`read()`; with `download`, what is missing is fetched and unpacked by tonic's class of this name.

    splits: whether the class takes `train`, for the two archives of its splits.
    """
    from st_utils.data.files import read_or_fetch

    def source(save_to: str, download: bool) -> None:
        import tonic  # slow to import

        for chosen in ({"train": True}, {"train": False}) if splits else ({},):
            getattr(tonic.datasets, tonic_class)(save_to, **chosen)

    source.__name__ = tonic_class
    return read_or_fetch(read, source, data_dir, tonic_class, download)
