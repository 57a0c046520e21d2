"""N-MNIST, CIFAR10-DVS and N-Caltech101, and the function that makes an event data set of lists of recordings.

    data = create("dataset", "dvsc10(split=tebn)", data_dir="data", step=10, event_size=48)
    frames, label = data.train[0]            # counts [10, 2, 48, 48], one channel per polarity

Event data sets take `step` (T), `event_size` (side of the frames), and `integration` and `resize`, see `Framing`. The
raw files are read once; the frames then come from a cache, see `cached_frames`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np

from registry import register
from st_utils.data.base import FrameData
from st_utils.data.events.cache import cached_frames, writable_cache
from st_utils.data.events.files import Events, read_events
from st_utils.data.events.frames import Framing, Integration, Recording, Resize
from st_utils.data.events.scan import (
    Split,
    find_root,
    numbered_labels,
    read_or_download_with_tonic,
    recordings_by_class,
    subfolder,
)
from st_utils.data.events.splits import CIFAR10_DVS, NCALTECH101, number_of, published_splits, split_recordings
from st_utils.errors import UserError

DIGITS = tuple(str(digit) for digit in range(10))
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
GESTURES = (
    "hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter-clockwise",
    "left arm clockwise", "left arm counter-clockwise", "arm roll", "air drums", "air guitar", "other gestures",
)  # fmt: skip


def read_recording(
    recording: Recording, sensor: tuple[int, int] | None, read: Callable[..., Events] = read_events
) -> Events:
    """Read the events of one sample, add its shift, and drop the events that are then outside the sensor."""
    events = read(recording.path, None if any(recording.shift) else sensor)
    if any(recording.shift):
        columns, rows = recording.shift
        events = replace(events, x=events.x + columns, y=events.y + rows)
        width, height = sensor
        events = events[(events.x >= 0) & (events.x < width) & (events.y >= 0) & (events.y < height)]
    return recording.select(events)


def frame_data(
    name: str,
    split: Split,
    class_names: Sequence[str],
    framing: Framing,
    data_dir: str,
    cache_dir: str | None,
    read: Callable[[Recording], Events] | None = None,
    shown: Callable[[Recording], str] | None = None,
) -> FrameData:
    """Make the data set of a training and a test list of recordings, which share none.

    `read` reads one sample's events; by default `read_recording`. `shown` names the object of a recording, for the
    splits' `objects`. Raises UserError where a list is empty.
    """
    for part, recordings in zip(("training", "test"), split, strict=True):
        if not recordings:
            raise UserError(f"{name}: {data_dir} has no {part} recordings: add some, or choose another split")
    train, test = split
    assert not {r.source for r in train} & {r.source for r in test}, f"{name}: train and test share a recording"
    if read is None:
        read_once = lru_cache(maxsize=1)(read_events)  # samples of the same file follow one another
        read = partial(read_recording, sensor=framing.sensor, read=read_once)
    folder, channels = writable_cache(cache_dir, data_dir), framing.channels

    def read_frames(path: Path) -> np.ndarray:
        return framing(read(Recording(path, label=0)))

    train, test = (
        cached_frames(f"{name}-{part}", recordings, read, framing, folder)
        for part, recordings in (("train", train), ("test", test))
    )
    if shown:
        for frames, recordings in zip((train, test), split, strict=True):
            frames.objects = [shown(recording) for recording in recordings]
    return FrameData(
        name,
        train,
        test,
        num_classes=len(class_names),
        in_channels=channels,
        img_size=framing.size,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        class_names=tuple(class_names),
        step=framing.step,
        read_frames=read_frames,
    )


@register.dataset(
    "nmnist", aliases=("NMNIST", "n_mnist", "N_MNIST"), source="Orchard et al., Frontiers in Neuroscience 9:437, 2015"
)
def nmnist(
    data_dir: str = "data",
    download: bool = False,
    cache_dir: str | None = None,
    step: int = 4,
    event_size: int = 34,
    integration: Integration = "count",
    resize: Resize = "coordinates",
) -> FrameData:
    """N-MNIST: MNIST before an event camera that makes three saccades, 34x34, 60,000 + 10,000; or a part of it.

    Its test recordings show MNIST's test images, which `mnist` does not train on.
    """

    def read() -> Split:
        root = find_root(
            "nmnist",
            data_dir,
            ("NMNIST", "nmnist", "N-MNIST", "DVS/NMNIST", "DVS/NMNIST/NMNIST"),
            lambda place: bool(subfolder(place, "Train", "train")),
            "Train/<digit>/*.bin",
        )
        test = subfolder(root, "Test", "test") or root / "Test"
        train = subfolder(root, "Train", "train")
        return tuple(recordings_by_class(folder, numbered_labels(10), (".bin",)) for folder in (train, test))

    split = read_or_download_with_tonic(read, "NMNIST", data_dir, download)
    framing = Framing(step, event_size, (34, 34), integration, resize)
    return frame_data("nmnist", split, DIGITS, framing, data_dir, cache_dir)


def upright(events: Events) -> Events:
    """Turn jAER's raw addresses of CIFAR10-DVS by 180 degrees and make ON events 1, as SpikingJelly does."""
    return replace(events, x=127 - events.x, y=127 - events.y, p=1 - events.p)


@register.dataset(
    "dvsc10",
    aliases=("cifar10dvs", "CIFAR10DVS", "cifar10_dvs", "dvs_cifar10", "DVS_CIFAR10", "dvscifar10"),
    source="Li et al., Frontiers in Neuroscience 11:309, 2017",
)
def dvsc10(
    data_dir: str = "data",
    download: bool = False,
    cache_dir: str | None = None,
    step: int = 4,
    event_size: int = 128,
    integration: Integration = "count",
    resize: Resize = "coordinates",
    split: str = "braincog",
) -> FrameData:
    """CIFAR10-DVS: 10,000 moving CIFAR-10 images, 128x128; split=braincog, spikingjelly, sdt or tebn.

    Which of the 60,000 images were recorded is not published: a test recording's own image may be one of those that
    `cifar10` trains on.
    """
    suffixes = (".aedat4", ".aedat", ".npz")

    def read() -> list[Recording]:
        root = find_root(
            "dvsc10",
            data_dir,
            ("CIFAR10DVS", "dvsc10", "cifar10dvs", "DVS/DVS_Cifar10/CIFAR10DVS", "extract", "events_np"),
            lambda place: any((place / name).is_dir() for name in CIFAR10),
            f"<class>/*{{{','.join(suffixes)}}} with classes such as airplane/",
        )
        return recordings_by_class(root, {name: i for i, name in enumerate(CIFAR10)}, suffixes)

    recordings = read_or_download_with_tonic(read, "CIFAR10DVS", data_dir, download, splits=False)
    framing = Framing(step, event_size, (128, 128), integration, resize)

    def events(recording: Recording) -> Events:
        sample = read_recording(recording, framing.sensor)
        return upright(sample) if recording.path.suffix == ".aedat" else sample

    both = split_recordings("dvsc10", split, CIFAR10_DVS, recordings, CIFAR10)
    return frame_data("dvsc10", both, CIFAR10, framing, data_dir, cache_dir, events)


@register.dataset(
    "ncaltech101",
    aliases=("NCALTECH101", "n_caltech101", "N_Caltech101", "ncaltech", "caltech101dvs"),
    source="Orchard et al., Frontiers in Neuroscience 9:437, 2015",
)
def ncaltech101(
    data_dir: str = "data",
    download: bool = False,
    cache_dir: str | None = None,
    step: int = 4,
    event_size: int = 128,
    integration: Integration = "count",
    resize: Resize = "coordinates",
    split: str = "braincog",
) -> FrameData:
    """N-Caltech101: 8,709 images of 101 classes, background among them; split=braincog, spikingjelly or statten.

    `caltech101` of the same split trains on no photograph whose recording is for testing.
    """
    names = caltech_classes()

    def read() -> list[Recording]:
        root = find_root(
            "ncaltech101",
            data_dir,
            (
                "Caltech101",
                "NCALTECH101/Caltech101",
                "ncaltech101/Caltech101",
                "DVS/NCALTECH101/Caltech101",
            ),
            lambda place: any((place / name).is_dir() for name in names),
            "<class>/image_*.bin with classes such as accordion/",
        )
        return recordings_by_class(root, {name: i for i, name in enumerate(names)}, (".bin",))

    recordings = read_or_download_with_tonic(read, "NCALTECH101", data_dir, download, splits=False)
    both = split_recordings("ncaltech101", split, NCALTECH101, recordings, names)
    framing = Framing(step, event_size, (240, 180), integration, resize)
    return frame_data("ncaltech101", both, names, framing, data_dir, cache_dir, shown=caltech_object)


@cache
def caltech_classes() -> tuple[str, ...]:
    """The names of the 101 class folders, sorted as text; a class's label is its index."""
    return tuple(published_splits("ncaltech101")["counts"])


def caltech_object(recording: Recording) -> str:
    """The photograph that a file of Caltech-101 or N-Caltech101 shows: "accordion/12" for accordion/image_0012.bin."""
    return f"{caltech_classes()[recording.label]}/{number_of(recording.path)}"
