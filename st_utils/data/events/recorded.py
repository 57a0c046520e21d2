"""Event data sets with file layouts of their own: DVS128 Gesture, N-CARS, ES-ImageNet, and a folder of the user's.

data = create("dataset", "event_folder", data_dir="recordings", step=4, event_size=64)
frames, label = data.train[0]            # counts [4, 2, 64, 64]
"""

from __future__ import annotations

import csv
from pathlib import Path

from registry import register
from st_utils.data.base import FrameData
from st_utils.data.events.frames import Framing, Integration, Recording, Resize
from st_utils.data.events.scan import (
    Split,
    class_folders,
    event_files,
    find_root,
    hold_out,
    numbered_labels,
    read_or_download_with_tonic,
    recordings_by_class,
    split_in_time,
    subfolder,
)
from st_utils.data.events.sets import GESTURES, frame_data
from st_utils.errors import UserError

ES_SIDE, ES_MARGIN = 254, 16  # BrainCog centres ES-ImageNet's images in 254 x 254 pixels and cuts a margin of 16


@register.dataset(
    "dvsg",
    aliases=("dvs128gesture", "DVS128Gesture", "dvs128_gesture", "dvsgesture", "DVSGesture", "dvs_gesture"),
    source="Amir et al., CVPR 2017",
)
def dvsg(
    data_dir: str = "data",
    download: bool = False,
    cache_dir: str | None = None,
    step: int = 4,
    event_size: int = 128,
    integration: Integration = "count",
    resize: Resize = "coordinates",
    parts: int = 10,
) -> FrameData:
    """DVS128 Gesture: 11 hand and arm gestures, 128x128, 1,176 + 288 (tonic's files: 1,077 + 264).

    Layouts that can be read: tonic's; the original (*.aedat with *_labels.csv and the lists of trials);
    SpikingJelly's events_np/{train,test}; Train/<1..11>/*.bs2; and single files <1..11>.bs2, each of which is cut
    into `parts` equal spans of time, every fifth of them for testing.
    """
    split = read_or_download_with_tonic(lambda: _gestures(data_dir, parts), "DVSGesture", data_dir, download)
    framing = Framing(step, event_size, (128, 128), integration, resize)
    return frame_data("dvsg", split, GESTURES, framing, data_dir, cache_dir)


def _gestures(data_dir: str, parts: int) -> Split:
    """The recordings of DVS128 Gesture in any of its layouts. Raises UserError where none is there."""

    def holds(place: Path) -> bool:
        has_splits = subfolder(place, "ibmGestureTrain", "train", "Train") or (place / "trials_to_train.txt").is_file()
        return bool(has_splits) or bool(event_files(place, (".bs2",)))

    places = ("DVSGesture", "dvsg", "DvsGesture", "events_np", "DVS/DVSGesture", "extract/DvsGesture")
    root = find_root("dvsg", data_dir, places, holds, "ibmGestureTrain/, trials_to_train.txt, train/ or <1..11>.bs2")
    if (root / "ibmGestureTrain").is_dir():
        return _users(root / "ibmGestureTrain"), _users(root / "ibmGestureTest")
    if (root / "trials_to_train.txt").is_file():
        return _trials(root, "train"), _trials(root, "test")
    train = subfolder(root, "train", "Train")
    if train:
        test = subfolder(root, "test", "Test") or root / "test"
        first = 1 if any(event_files(place, (".bs2",)) for place in class_folders(train)) else 0
        labels = numbered_labels(11, first)
        return recordings_by_class(train, labels), recordings_by_class(test, labels)
    return split_in_time([(path, _gesture(path.stem, path, 1)) for path in event_files(root, (".bs2",))], parts, "dvsg")


def _gesture(text: str, path: Path, first: int) -> int:
    """The label, 0 to 10, of a gesture, which files number from `first`. Raises UserError, naming `path`."""
    label = int(text) - first if text.strip().isdigit() else -1
    if not 0 <= label < len(GESTURES):
        raise UserError(
            f"{path} has the label {text!r}, but gestures are {first} to {first + 10}: replace or remove it"
        )
    return label


def _users(folder: Path) -> list[Recording]:
    """The recordings of one of tonic's splits, userNN_<lighting>/<0..10>.npy."""
    if not folder.is_dir():
        raise UserError(f"{folder}/ is missing: pass --data-dir DIR where DIR holds it, or --download")
    recordings = []
    for place in class_folders(folder):
        files = event_files(place, (".npy",))
        if not files:
            raise UserError(f"{place}/ has no event files (.npy): add some, or remove it")
        recordings += [Recording(path, _gesture(path.stem, path, 0)) for path in files]
    return recordings


def _trials(root: Path, split: str) -> list[Recording]:
    """The recordings of a split in the original files: NAME_labels.csv has their classes (1 to 11), starts and ends."""
    names, recordings = root / f"trials_to_{split}.txt", []
    try:
        for name in names.read_text().split():
            table = root / f"{Path(name).stem}_labels.csv"
            with open(table, newline="") as file:
                rows = list(csv.reader(file))[1:]
            for row in rows:
                if len(row) != 3 or not all(cell.strip().isdigit() for cell in row):
                    raise UserError(f"{table} is damaged: want a class, a start and an end in each line; replace it")
                label, start, stop = _gesture(row[0], table, 1), int(row[1]), int(row[2])
                recordings.append(Recording(root / name, label, start=start, stop=stop))
    except OSError as error:
        raise UserError(f"{error.filename} can't be read: {error.strerror}") from None
    return recordings


@register.dataset(
    "ncars", aliases=("NCARS", "n_cars", "N_CARS"), source="Sironi et al., CVPR 2018, arXiv:1803.07913 (HATS)"
)
def ncars(
    data_dir: str = "data",
    cache_dir: str | None = None,
    step: int = 4,
    event_size: int = 48,
    integration: Integration = "count",
    resize: Resize = "coordinates",
) -> FrameData:
    """N-CARS: cars or background before an event camera, 15,422 + 8,607; each recording is scaled by its own extent."""
    labels = {"background": 0, "cars": 1}

    def folders(place: Path) -> tuple[Path | None, Path | None]:
        return subfolder(place, "n-cars_train", "train", "Train"), subfolder(place, "n-cars_test", "test", "Test")

    root = find_root(
        "ncars",
        data_dir,
        ("NCARS", "ncars", "Prophesee_Dataset_n_cars", "DVS/NCARS"),
        lambda place: all(folders(place)),
        "n-cars_train/ and n-cars_test/ (from Prophesee; it is given out on request only)",
    )
    train, test = (recordings_by_class(folder, labels, (".dat",)) for folder in folders(root))
    framing = Framing(step, event_size, None, integration, resize)
    return frame_data("ncars", (train, test), tuple(labels), framing, data_dir, cache_dir)


@register.dataset(
    "esimagenet",
    aliases=("ESImageNet", "es_imagenet", "esimnet", "ES_ImageNet"),
    source="Lin et al., Frontiers in Neuroscience 15:726582, 2021",
)
def esimagenet(
    data_dir: str = "data",
    cache_dir: str | None = None,
    step: int = 8,
    event_size: int = 224,
    integration: Integration = "time",
    resize: Resize = "coordinates",
) -> FrameData:
    """ES-ImageNet: ImageNet as events in 8 steps, centred in 224x224; train/, val/ and their lists *label.txt.

    Events outside the 224 x 224 pixels in the middle are dropped. Several events at one pixel and step add up
    (BrainCog's loader sets 1).
    """
    places = (
        "ES-imagenet-0.18",
        "esimagenet",
        "extract/ES-imagenet-0.18",
        "DVS/ES-imagenet-0.18/extract/ES-imagenet-0.18",
    )
    root = find_root(
        "esimagenet", data_dir, places, lambda place: (place / "trainlabel.txt").is_file(), "trainlabel.txt"
    )
    split = _listed(root, "train"), _listed(root, "val")
    framing = Framing(step, event_size, (224, 224), integration, resize, span=(1, 9))
    return frame_data("esimagenet", split, tuple(str(i) for i in range(1000)), framing, data_dir, cache_dir)


def _listed(root: Path, split: str) -> list[Recording]:
    """The recordings in a list; each line has a file's name, its class, and its image's rows and columns."""
    table, recordings = root / f"{split}label.txt", []
    try:
        lines = table.read_text().splitlines()
    except OSError as error:
        raise UserError(f"{table} can't be read: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        try:
            name, label, rows, columns = line.split()
            label, rows, columns = int(label), int(rows), int(columns)
        except ValueError:
            raise UserError(f"{table}, line {number}: want a name, a class, rows and columns; replace it") from None
        if not 0 <= label < 1000:
            raise UserError(f"{table}, line {number} has the label {label}, but there are 1000 classes: replace it")
        path = root / split / f"{name.split('.')[0]}.npz"
        if not path.is_file():
            raise UserError(f"{path} is missing, which {table.name} lists: unpack it, or remove its line")
        shift = (ES_SIDE - columns) // 2 - ES_MARGIN, (ES_SIDE - rows) // 2 - ES_MARGIN
        recordings.append(Recording(path, label, shift=shift))
    return recordings


@register.dataset("event_folder", aliases=("events", "eventfolder"), source="the user's own")
def event_folder(
    data_dir: str = "data",
    cache_dir: str | None = None,
    step: int = 4,
    event_size: int = 64,
    integration: Integration = "count",
    resize: Resize = "coordinates",
    sensor: tuple[int, int] | None = None,
    holdout: int = 5,
    parts: int = 10,
) -> FrameData:
    """Any event files: train/ and test/ of class folders, class folders, or a single file for each class.

    Formats: .bin, .bs2, .aedat (2.0 of a DVS128, 3.1), .aedat4, .dat, .mat (ST-MNIST), .npz, .npy. In class folders
    without a split, every `holdout`-th file of a class is for testing. A single file is cut into `parts` spans of time,
    every fifth for testing. `sensor` is (columns, rows); without it each recording is scaled from its own extent.
    """
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise UserError(f"{root}/ is missing: pass --data-dir DIR where DIR holds event files")
    train, test = subfolder(root, "train", "Train"), subfolder(root, "test", "Test")
    if train and test:
        names = [place.name for place in class_folders(train)]
        labels = {name: i for i, name in enumerate(names)}
        split = recordings_by_class(train, labels), recordings_by_class(test, labels)
    elif files := event_files(root):
        names = [path.stem for path in files]
        split = split_in_time([(path, i) for i, path in enumerate(files)], parts, "event_folder")
    else:
        names = [place.name for place in class_folders(root)]
        split = hold_out(recordings_by_class(root, {name: i for i, name in enumerate(names)}), holdout, "event_folder")
    framing = Framing(step, event_size, sensor, integration, resize)
    return frame_data("event_folder", split, names, framing, data_dir, cache_dir)
