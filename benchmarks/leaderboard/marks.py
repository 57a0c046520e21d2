"""Marks: why a row of the table may mislead, such as missing seeds, or runs of different commits.

    row_marks(done, others)                  # ["seed 2 failed", "more than one torch: 2.14.0, 2.15.0"]

Each mark is a few words for the table's column "notes".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.leaderboard.chance import above_chance, finite_or_none, score_of

ORIGIN = ("commit", "torch", "device")  # keys of a run's summary that all runs of a row should share


def row_marks(done: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]]) -> list[str]:
    """The marks of a row; `done` are its finished runs, `others` those that are not finished."""
    marks = [f"{_seeds(runs)} {what}" for what, runs in _unfinished(others).items()]
    if without := [run for run in done if finite_or_none(run["summary"].get("top1")) is None]:
        marks.append(f"{_seeds(without)} without accuracy")
    if None in (scores := [score_of(run["summary"]) for run in done]):
        marks.append("chance level unknown")
    scored = [(run, score) for run, score in zip(done, scores, strict=True) if score]
    guessed = [run for run, score in scored if not above_chance([score])]
    if guessed and above_chance([score for _, score in scored]):  # else the whole row is marked as not learned
        marks.append(f"{_seeds(guessed)} did not learn")
    origins = {name: sorted({str(run["summary"].get(name)) for run in done}) for name in ORIGIN}
    marks += [f"more than one {name}: {', '.join(each)}" for name, each in origins.items() if len(each) > 1]
    if len(data_contents(done)) > 1:
        marks.append("different data")
    if names := different_settings(done):
        marks.append(f"different settings: {', '.join(names)}")
    if copies := repeated(done):
        marks.append(f"{_seeds(copies)} repeat another seed's run")
    return marks


def data_contents(runs: Sequence[dict[str, Any]]) -> set[str]:
    """The data of these runs, such as {"98a708a9, 359 test images"}: digest and number of test images, if recorded."""
    contents = set()
    for run in runs:
        data, images = run["summary"].get("data"), run["summary"].get("test_images")
        digest = str(data.get("digest") or "")[:8] if isinstance(data, dict) else ""
        contents.add(", ".join(([digest] if digest else []) + ([f"{images} test images"] if images else [])))
    return contents - {""}


def different_settings(runs: Sequence[dict[str, Any]]) -> list[str]:
    """The settings, except the seed, in which runs of one row differ, for example because their recipe was edited."""
    identities = [(run.get("arguments") or {}).get("identity") for run in runs]
    identities = [each for each in identities if each]
    names = set.intersection(*map(set, identities)) - {"seed"} if identities else set()  # an older run has fewer
    return [name for name in sorted(names) if len({json.dumps(each[name], sort_keys=True) for each in identities}) > 1]


def repeated(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs whose losses and accuracies all equal an earlier run's, which two different seeds never give."""
    seen, copies = set(), []
    for run in runs:
        curve = [(line.get("train_loss"), line.get("test_loss"), line.get("top1")) for line in run["metrics"] or []]
        if curve and all(None not in each for each in curve):
            if str(curve) in seen:
                copies.append(run)
            seen.add(str(curve))
    return copies


def _unfinished(runs: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """{"failed": runs, "not finished": runs}, without empty lists."""
    words = {"failed": "failed", "running": "not finished", "pending": "not finished"}
    return {
        word: group
        for word in dict.fromkeys(words.values())
        if (group := [run for run in runs if words[run["status"]] == word])
    }


def _seeds(runs: Sequence[dict[str, Any]]) -> str:
    """The seeds of runs, such as "seed 2" or "seeds 0, 2"."""
    numbers = sorted(run["seed"] for run in runs)
    return ("seed " if len(numbers) == 1 else "seeds ") + ", ".join(map(str, numbers))
