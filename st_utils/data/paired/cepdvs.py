"""CEP-DVS: pictures of 20 superclasses of CIFAR-100 before a moving event camera, and the pictures themselves.

events = create("dataset", "cepdvs(train_portion=0.5)", data_dir="data")    # data/CEP-DVS/data/MAT/img/0.mat, ...
images = create("dataset", "rgbcepdvs", data_dir="data")                    # data/CEP-DVS/data/img/0.jpg, ...

Line i after the headings of `pathFile.csv` describes the files numbered i of both, from 0; its fifth word is the class.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from registry import register
from st_utils.data.base import DataSet, FrameData
from st_utils.data.events.frames import Framing, Integration, Recording, Resize
from st_utils.data.events.scan import Split, find_root, natural_key
from st_utils.data.events.sets import frame_data
from st_utils.data.images.folder import IMAGENET_MEAN, IMAGENET_STD, Photos
from st_utils.errors import UserError

SUPERCLASSES = (
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "household_electrical_devices",
    "household_furniture", "insects", "large_carnivores", "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes", "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates",
    "people", "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
)  # fmt: skip
SOURCE = "Deng et al., IEEE TIP 30, 2021 (CEP-DVS)"
PLACES = ("CEP-DVS", "cepdvs", "CEPDVS", "cep-dvs", "DVS/CEP-DVS")
TABLE, RECORDINGS, IMAGES = "pathFile.csv", "data/MAT/img", "data/img"
TEST_PORTION = 0.2  # of each class, which follow those that train


def labels_in(table: Path) -> list[int]:
    """The label of each number, from 0 on, in pathFile.csv. Raises UserError, naming a line, where it has none."""
    try:
        lines = table.read_text().splitlines()[1:]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{table} can't be read ({error}): replace it") from None
    labels = []
    for number, line in enumerate(line for line in lines if line.strip()):
        words = re.split(r"\s", line.strip(" \r\n"))
        if len(words) < 5 or words[4] not in SUPERCLASSES:
            raise UserError(f"{table}: the line of number {number} has no superclass as its fifth word: replace it")
        labels.append(SUPERCLASSES.index(words[4]))
    return labels


def split_numbers(labels: Sequence[int], train_portion: float) -> tuple[set[int], set[int]]:
    """The numbers that train and those that test: of each class's n numbers in order, the first n * train_portion, and
    the fifth of n that follows.

    The numbers come from the whole table: which files are there does not change a number's split.
    """
    if not 0 < train_portion <= 1 - TEST_PORTION:
        raise UserError(f"train_portion is {train_portion}: give above 0 and up to {1 - TEST_PORTION}; a fifth tests")
    train, test = set(), set()
    for label in range(len(SUPERCLASSES)):
        members = [number for number, own in enumerate(labels) if own == label]
        last = round(train_portion * len(members))
        train.update(members[:last])
        test.update(members[last : last + len(members) - round((1 - TEST_PORTION) * len(members))])
    return train, test


def cepdvs_object(recording: Recording) -> str:
    """The picture that a file shows: "picture 12" for 12.mat and 12.jpg."""
    return f"picture {int(recording.path.stem)}"


def _split(name: str, data_dir: str, place: str, suffixes: Sequence[str], train_portion: float) -> Split:
    """The files of `place` that train and those that test, sorted by number."""

    def holds(root: Path) -> bool:
        return (root / TABLE).is_file() or (root / place).is_dir() or (root / "data.pkl").is_file()

    root = find_root(name, data_dir, PLACES, holds, f"{TABLE} and {place}/")
    folder = root / place
    for needed in (root / TABLE, folder):
        if not needed.exists():
            pickles = " (data.pkl and targets.pkl are pickles, which are never loaded)" * any(root.glob("*.pkl"))
            raise UserError(f"{needed} is missing{pickles}: unpack the original files of CEP-DVS into {root}")
    labels, found = labels_in(root / TABLE), {}
    for path in sorted(folder.iterdir(), key=natural_key):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        number = int(path.stem) if path.stem.isdecimal() else len(labels)
        if number >= len(labels):
            raise UserError(f"{path} has no line in {TABLE}, which has the numbers 0 to {len(labels) - 1}: remove it")
        if number in found:
            raise UserError(f"{path} and {found[number].path.name} have the same number: remove one")
        found[number] = Recording(path, labels[number])
    train, test = (
        [found[number] for number in sorted(numbers & found.keys())] for numbers in split_numbers(labels, train_portion)
    )
    for part, recordings in (("training", train), ("test", test)):
        if not recordings:
            raise UserError(f"{name}: {folder} has no {part} files: unpack all 10,000")
    return train, test


@register.dataset("cepdvs", aliases=("CEPDVS", "cep_dvs", "CEP_DVS"), source=SOURCE)
def cepdvs(
    data_dir: str = "data",
    cache_dir: str | None = None,
    step: int = 6,
    event_size: int = 48,
    integration: Integration = "time",
    resize: Resize = "coordinates",
    train_portion: float = 0.5,
) -> FrameData:
    """CEP-DVS: 10,000 recordings of 20 superclasses, 5,000 + 2,000; `pathFile.csv`, `data/MAT/img/<number>.mat`.

    Of each class, by number, the first `train_portion` are for training and the fifth after them for testing; the
    others are left out, as in the authors' code. (There the test part moves with the ratio of target data too, and the
    blocks of 500 files that it takes for classes are in the order of the names as text.) Each recording is scaled by
    its own extent. `rgbcepdvs` of the same `train_portion` trains on no picture whose recording is for testing.
    """
    split = _split("cepdvs", data_dir, RECORDINGS, (".mat",), train_portion)
    framing = Framing(step, event_size, None, integration, resize)
    return frame_data("cepdvs", split, SUPERCLASSES, framing, data_dir, cache_dir, shown=cepdvs_object)


@register.dataset("rgbcepdvs", aliases=("RGBCEPDVS", "rgb_cepdvs", "cepdvs_rgb"), source=SOURCE)
def rgbcepdvs(data_dir: str = "data", img_size: int | None = None, train_portion: float = 0.5) -> DataSet:
    """The pictures of CEP-DVS: 10,000 photographs of 20 superclasses, 5,000 + 2,000; `data/img/<number>.jpg`.

    Labels are those of `pathFile.csv` and the split is that of `cepdvs`, both by number. (The authors' code sorts the
    pictures by number and their labels by the numbers as text: with names such as 2 and 10 the two orders differ.)
    """
    splits = []
    for recordings in _split("rgbcepdvs", data_dir, IMAGES, IMG_EXTENSIONS, train_portion):
        split = Photos([(str(recording.path), recording.label) for recording in recordings])
        split.objects = [cepdvs_object(recording) for recording in recordings]
        splits.append(split)
    side = 48 if img_size is None else img_size
    return DataSet("rgbcepdvs", *splits, 20, 3, side, IMAGENET_MEAN, IMAGENET_STD, SUPERCLASSES)
