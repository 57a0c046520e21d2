"""The published splits of the event data sets that come without one, as stored lists with their hashes.

`splits.json` names the held-out recordings by class and number, so that a recording is in the same split however many
of the others are there. Where the authors' code follows the order in which the file system lists the files, which is
another on every machine, the order here is by number; this is said at the split.
"""

import hashlib
import json
import re
from collections.abc import Collection, Container
from functools import cache
from pathlib import Path
from typing import Any

from st_utils.data.events.frames import Recording
from st_utils.errors import UserError

FILE = Path(__file__).with_name("splits.json")

# name -> where it is from. SDT, Spikformer, QKFormer, SpikingResformer and DTA-SNN split as SpikingJelly does.
CIFAR10_DVS = {
    "braincog": "BrainCog, STEP: the first 900 of each class train (by number; theirs by the file system's order)",
    "spikingjelly": "SpikingJelly's split_to_train_test_set(0.9): the first 900 in the order of the names as text",
    "sdt": "SDT, Spikformer, QKFormer, STAtten: SpikingJelly's",
    "tebn": "TEBN and works after it: 0 to 99 of each class test",
}
NCALTECH101 = {
    "braincog": "BrainCog: the first round(0.9 n) of each class train (by number)",
    "spikingjelly": "SpikingJelly's split_to_train_test_set(0.9): the first ceil(0.9 n) of each class train",
    "statten": "STAtten: the first int(0.9 n) of each class train (by number; theirs by the file system's order)",
}
SAME = {"sdt": "spikingjelly"}


def published(dataset: str) -> dict[str, Any]:
    """A data set's entry in the stored lists: its splits, and the `counts` of each class where they differ."""
    return json.loads(FILE.read_text())[dataset]


@cache
def held_out(dataset: str, split: str, class_names: tuple[str, ...]) -> dict[str, Container[int]]:
    """The test recordings' numbers of every class, checked against the list's hash."""
    table = published(dataset)
    entry = table[SAME.get(split, split)]
    if "test" in entry:
        held = dict.fromkeys(class_names, frozenset(entry["test"]))
    else:
        last = dict(zip(table["counts"], entry["train"], strict=True))
        held = {name: range(last[name] + 1, table["counts"][name] + 1) for name in class_names}
    if digest(held) != entry["sha256"]:
        raise UserError(f"{FILE} was changed: its split {split} of {dataset} is not the published one; restore it")
    return held if "test" in entry else {name: Above(last[name]) for name in class_names}


class Above:
    """All numbers above one: a number that is missing in a class must not bring its last image into training."""

    def __init__(self, last: int):
        self.last = last

    def __contains__(self, number: int) -> bool:
        return number > self.last


def digest(held: dict[str, Collection[int]]) -> str:
    """The hash of a list of held-out recordings: sha256 of class/number, a line each, sorted."""
    lines = (f"{name}/{number}" for name in sorted(held) for number in sorted(held[name]))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def number_of(path: Path) -> int:
    """The last number in a recording's name: 91 of cifar10_airplane_91.aedat."""
    numbers = re.findall(r"\d+", path.stem)
    if not numbers:
        raise UserError(f"{path} has no number in its name, by which the split is made: rename or remove it")
    return int(numbers[-1])


def split_recordings(
    dataset: str, split: str, choices: dict[str, str], recordings: list[Recording], class_names: tuple[str, ...]
) -> tuple[list[Recording], list[Recording]]:
    """Train and test recordings of a published split. Raises UserError for a split that is not in `choices`."""
    if split not in choices:
        raise UserError(f"{dataset}: unknown split {split!r}; choose one of {', '.join(choices)}")
    held = held_out(dataset, split, class_names)
    train, test = [], []
    for recording in recordings:
        is_test = number_of(recording.path) in held[class_names[recording.label]]
        (test if is_test else train).append(recording)
    return train, test
