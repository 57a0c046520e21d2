"""The published splits of event data sets that come without a split, as stored lists with their hashes.

    train, test = split_recordings("dvsc10", "braincog", CIFAR10_DVS, recordings, class_names)

`splits.json` names the test recordings by class and number, so that a recording's split does not depend on which other
recordings are there. Some authors' code follows the order in which the file system lists the files, which differs
between machines; the order here is by number then, and the split's text says so.
"""

from __future__ import annotations

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

# name -> source. SDT, Spikformer, QKFormer, SpikingResformer and DTA-SNN split as SpikingJelly does.
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
SAME_AS = {"sdt": "spikingjelly"}


def published_splits(dataset: str) -> dict[str, Any]:
    """A data set's entry in splits.json: its splits, and, where classes differ in size, their sizes in `counts`."""
    return json.loads(FILE.read_text())[dataset]


@cache
def held_out(dataset: str, split: str, class_names: tuple[str, ...]) -> dict[str, Container[int]]:
    """The numbers of each class's test recordings. Raises UserError where splits.json was changed (see `digest`)."""
    table = published_splits(dataset)
    entry = table[SAME_AS.get(split, split)]
    if "test" in entry:
        held = dict.fromkeys(class_names, frozenset(entry["test"]))
    else:
        last = dict(zip(table["counts"], entry["train"], strict=True))
        held = {name: range(last[name] + 1, table["counts"][name] + 1) for name in class_names}
    if digest(held) != entry["sha256"]:
        raise UserError(f"{FILE} was changed: its split {split} of {dataset} is not the published one; restore it")
    return held if "test" in entry else {name: NumbersAbove(last[name]) for name in class_names}


class NumbersAbove:
    """The set of all numbers above `last`.

    Why not range(last + 1, count + 1): where a number is missing in a class, its last recording's number is above the
    count, and that recording would go into training.
    """

    def __init__(self, last: int):
        self.last = last

    def __contains__(self, number: int) -> bool:
        return number > self.last


def digest(held: dict[str, Collection[int]]) -> str:
    """The SHA-256 of the test recordings: one line class/number for each, sorted."""
    lines = (f"{name}/{number}" for name in sorted(held) for number in sorted(held[name]))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def number_of(path: Path) -> int:
    """The last number in a file's name: 91 for cifar10_airplane_91.aedat. Raises UserError where there is none."""
    numbers = re.findall(r"\d+", path.stem)
    if not numbers:
        raise UserError(f"{path} has no number in its name, by which the split is made: rename or remove it")
    return int(numbers[-1])


def split_recordings(
    dataset: str, split: str, choices: dict[str, str], recordings: list[Recording], class_names: tuple[str, ...]
) -> tuple[list[Recording], list[Recording]]:
    """Split recordings as published: (training, test). Raises UserError for a split that is not in `choices`."""
    if split not in choices:
        raise UserError(f"{dataset}: unknown split {split!r}; choose one of {', '.join(choices)}")
    held = held_out(dataset, split, class_names)
    train, test = [], []
    for recording in recordings:
        is_test = number_of(recording.path) in held[class_names[recording.label]]
        (test if is_test else train).append(recording)
    return train, test
