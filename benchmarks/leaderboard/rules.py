"""Check a suite's seeds and settings: none may make equal runs look like different ones.

seed_numbers("0, 1, 2", "--seeds")          # [0, 1, 2]
run_settings({"epochs": 8}, "mine.yml")     # {"epochs": 8}
run_settings({"seed": 3}, "mine.yml")       # UserError: every seed of the suite would then be run 3
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from st_utils.errors import UserError
from st_utils.training.settings import Settings, checked

LARGEST_SEED = 2**63 - 1  # the largest integer in the store

# Settings that change no result, but the time or the memory, which are columns of the table.
MEASURED_BY = ("workers", "pack_spikes", "recompute")
# Settings that are written elsewhere in a suite, or on the command line: where.
ELSEWHERE = {
    "model": "the entries have it",
    "dataset": "write it as the suite's or the entry's own `dataset`",
    "recipe": "write it as the suite's or the entry's own `recipe`",
    "seed": "write the suite's `seeds`: with one seed in the settings all of them would be the same run",
    "plugin": "give --plugin on the command line",
    "config": "write its settings here",
    "data_dir": "give --data-dir on the command line",
    "cache_dir": "give --cache-dir on the command line",
    "download": "give --download on the command line",
    "device": "give --device on the command line",
    "mac_pj": "all rows count energy with the same constants",
    "ac_pj": "all rows count energy with the same constants",
    "byte_pj": "all rows count energy with the same constants",
}
RUNNERS = "the runner decides it for every run"


def run_settings(values: Any, origin: str) -> dict[str, Any]:
    """Check the settings of a suite or an entry. Raises UserError, naming `origin`, for one that can't be there."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise UserError(f"{origin}: settings are {values!r}: write names and values, such as {{epochs: 8}}")
    good = checked(values, origin)
    if len(good) < len(values):
        raise UserError(
            f"{origin}: settings name {', '.join(sorted(good))} more than once: write each with one spelling"
        )
    changes_result = {f.name for f in fields(Settings) if f.metadata["result"]}
    for name in good:
        if name in ELSEWHERE or (name not in changes_result and name not in MEASURED_BY):
            raise UserError(f"{origin}: {name} can't be among a suite's settings: {ELSEWHERE.get(name, RUNNERS)}")
    return good


def seed_numbers(written: str | Iterable[Any], origin: str) -> list[int]:
    """Read seeds from a text with commas or from a YAML list.

    Raises UserError, naming `origin`, unless each is a whole number from 0 up and there only once: a repeated seed
    would count one run as two.
    """
    if isinstance(written, str):
        words: list[Any] = [word.strip() for word in written.split(",")]
        words = [int(word) if re.fullmatch("0|[1-9][0-9]*", word) else word for word in words]
    elif isinstance(written, list):
        words = written
    else:
        raise UserError(f"{origin}: seeds are {written!r}: write a list of whole numbers, such as [0, 1, 2]")
    for word in words:
        if type(word) is not int or not 0 <= word <= LARGEST_SEED:
            raise UserError(
                f"{origin}: {word!r} is not a seed: write whole numbers with commas, from 0 on, such as 0,1,2"
            )
    if not words:
        raise UserError(f"{origin}: there are no seeds: write at least one, such as [0]")
    if repeated := sorted({word for word in words if words.count(word) > 1}):
        raise UserError(f"{origin}: seed {repeated[0]} is there more than once: that is one run, not several")
    return words


def suite_seeds(content: Mapping[str, Any], path: Path) -> list[int]:
    """The seeds of a suite's file, `[0, 1, 2]` where it has none.

    Their text is checked too, because YAML reads 012 and 1_0 as ten, and 1:30 as ninety.
    """
    if "seeds" not in content:
        return [0, 1, 2]
    root = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
    for key, value in root.value:
        if key.value == "seeds" and isinstance(value, yaml.SequenceNode):
            for node in value.value:
                plain = isinstance(node, yaml.ScalarNode) and node.style is None
                if plain and not re.fullmatch("0|[1-9][0-9]*", node.value):
                    seed_numbers(node.value, str(path))
    return seed_numbers(content["seeds"], str(path))
