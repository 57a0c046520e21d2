"""What a reader must know before believing a row: seeds that are missing, runs that are not alike.

Each mark is a few words for the table's column of notes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.leaderboard.chance import above_chance, finite, score_of

ALIKE = ("commit", "torch", "device")  # what a summary says of where the run was made


def row_marks(done: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> list[str]:
    """The marks of a row with these finished runs and these that are not finished."""
    marks = [f"{_seeds(runs)} {what}" for what, runs in _unfinished(others).items()]
    if none := [run for run in done if finite(run["summary"].get("top1")) is None]:
        marks.append(f"{_seeds(none)} without accuracy")
    if None in (found := [score_of(run["summary"]) for run in done]):
        marks.append("chance level unknown")
    known = [(run, each) for run, each in zip(done, found, strict=True) if each]
    guessed = [run for run, each in known if not above_chance([each])]
    if guessed and above_chance([each for _, each in known]):  # else the whole row says so
        marks.append(f"{_seeds(guessed)} did not learn")
    origins = {name: sorted({str(run["summary"].get(name)) for run in done}) for name in ALIKE}
    marks += [f"more than one {name}: {', '.join(each)}" for name, each in origins.items() if len(each) > 1]
    if len(data_contents(done)) > 1:
        marks.append("different data")
    if names := different_settings(done):
        marks.append(f"different settings: {', '.join(names)}")
    if same := repeated(done):
        marks.append(f"{_seeds(same)} repeat another seed's run")
    return marks


def data_contents(runs: Sequence[dict[str, Any]]) -> set[str]:
    """The data that these runs had: their test images' number and the first digits of their digest, where known."""
    found = set()
    for run in runs:
        data, images = run["summary"].get("data"), run["summary"].get("test_images")
        digest = str(data.get("digest") or "")[:8] if isinstance(data, dict) else ""
        found.add(", ".join(([digest] if digest else []) + ([f"{images} test images"] if images else [])))
    return found - {""}


def different_settings(runs: Sequence[dict[str, Any]]) -> list[str]:
    """The settings, seed apart, in which runs of one row differ: their recipe was edited between them, say."""
    identities = [(run.get("arguments") or {}).get("identity") for run in runs]
    identities = [each for each in identities if each]
    names = set.intersection(*map(set, identities)) - {"seed"} if identities else set()  # an older run says fewer
    return [name for name in sorted(names) if len({json.dumps(each[name], sort_keys=True) for each in identities}) > 1]


def repeated(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs whose every loss and accuracy is that of an earlier one: another seed would have changed them."""
    seen, found = set(), []
    for run in runs:
        curve = [(line.get("train_loss"), line.get("test_loss"), line.get("top1")) for line in run["metrics"] or []]
        if curve and all(None not in each for each in curve):
            if str(curve) in seen:
                found.append(run)
            seen.add(str(curve))
    return found


def _unfinished(runs: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    words = {"failed": "failed", "running": "not finished", "pending": "not finished"}
    return {
        word: found
        for word in dict.fromkeys(words.values())
        if (found := [run for run in runs if words[run["status"]] == word])
    }


def _seeds(runs: Sequence[dict[str, Any]]) -> str:
    numbers = sorted(run["seed"] for run in runs)
    return ("seed " if len(numbers) == 1 else "seeds ") + ", ".join(map(str, numbers))
