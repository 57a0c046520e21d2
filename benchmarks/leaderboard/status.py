"""What a store's runs are doing: queued, running, lost, failed or done, and how far those that run have come.

    python -m benchmarks.leaderboard status --store results.db

The figures of a running run come from its folder's metrics.jsonl, which has a line for every epoch that is done.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.leaderboard.store import alive
from st_utils.errors import UserError
from st_utils.training.run_folder import RunFolder
from st_utils.training.settings import read_yaml

STATES = ("done", "running", "lost", "queued", "failed")


@dataclass(frozen=True)
class Progress:
    """How far a running run has come, from its folder.

    Attributes:
        epoch, epochs: those that are done, and all that it will do.
        top1: in percent, after the last epoch; None before the first has ended.
        seconds_left: until its last epoch has ended; None where no epoch was timed.
    """

    epoch: int
    epochs: int
    top1: float | None
    seconds_left: float | None


def state(run: dict[str, Any]) -> str:
    """One of `STATES`. A run is lost when the process that took it is dead: the next `run` takes it up."""
    if run["status"] == "running":
        return "running" if alive(run["owner"], run["beat"]) else "lost"
    return "queued" if run["status"] == "pending" else run["status"]


def progress(folder: Path) -> Progress | None:
    """The progress of the run in `folder`, the one that `<store>.runs/` has for its key; None before it trains."""
    files = sorted(folder.glob("*/args.yml"), key=lambda path: path.stat().st_mtime)
    if not files:
        return None
    try:
        epochs = int(read_yaml(files[-1])["epochs"])
        rows = RunFolder.open(files[-1].parent).read_metrics()
    except (UserError, LookupError, TypeError, ValueError):  # being written, or of another version
        return None
    if not rows:
        return Progress(0, epochs, None, None)
    metrics = files[-1].with_name("metrics.jsonl")
    began, ended = files[-1].stat().st_mtime, metrics.stat().st_mtime
    left = (epochs - len(rows)) * _seconds_per_epoch(rows, ended - began) - (time.time() - ended)
    return Progress(rows[-1]["epoch"], epochs, rows[-1].get("top1"), max(left, 0.0))


def _seconds_per_epoch(rows: list[dict[str, Any]], wall: float) -> float:
    """Seconds from one epoch's end to the next, testing and saving included.

    `wall` seconds passed between the run's start, or its last resumption, and the end of its last epoch. The rows
    know the seconds of training alone; the last epochs whose training fits into `wall` are those that it holds.
    """
    trained, count = 0.0, 0
    for row in reversed(rows):
        trained += row["seconds"]
        if trained > wall:
            break
        count += 1
    return wall / count if count else rows[-1]["seconds"]


def name(run: dict[str, Any]) -> str:
    """How lines call a run: label, data set and seed."""
    return f"{run['label'] or run['spec']} on {run['dataset']}, seed {run['seed']}"


def how_far(run: dict[str, Any], output: Path) -> str:
    """Epoch, accuracy and time left of a run that was begun, as far as this machine sees its folder."""
    found = progress(output / run["key"])
    if found is None:
        return "no epoch has begun yet, or its folder is on another machine"
    accuracy = "" if found.top1 is None else f", top-1 {found.top1:.2f} %"
    left = "" if found.seconds_left is None else f", about {duration(found.seconds_left)} left"
    return f"epoch {found.epoch} of {found.epochs} done{accuracy}{left}"


def lines(runs: Iterable[dict[str, Any]], output: Path) -> list[str]:
    """What to tell of a store's runs, whose folders lie in `output`: the counts, then each run that is under way."""
    runs = list(runs)
    by_state = {each: [run for run in runs if state(run) == each] for each in STATES}
    told = [f"{len(runs)} runs: " + ", ".join(f"{len(found)} {each}" for each, found in by_state.items())]
    further = {
        "running": lambda run: f": {how_far(run, output)}; by {run['owner'].rsplit(':', 1)[0]}",
        "lost": lambda run: f": {how_far(run, output)}; its runner is dead, the next `run` takes it up",
        "failed": lambda run: f": {run['error']}",
        "queued": lambda run: "",
    }
    for each, what in further.items():
        told += [f"{each:<8} {name(run)}{what(run)}" for run in by_state[each]]
    return told


def duration(seconds: float) -> str:
    """Seconds in the two largest units that matter: 42 s, 5 min 10 s, 3 h 20 min, 2 d 4 h."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600} h"
