"""Describe the state of a store's runs: queued, running, lost, failed or done, and the progress of running ones.

    python -m benchmarks.leaderboard status --store results.db

The progress of a run comes from metrics.jsonl in its folder, which has a line for every epoch that is done.
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
    """The progress of a running run.

    Attributes:
        epoch: how many epochs are done.
        epochs: how many epochs the run has.
        top1: the test accuracy in percent after the last epoch that is done; None before the first.
        seconds_left: the estimated time until the last epoch has ended; None before the first.
    """

    epoch: int
    epochs: int
    top1: float | None
    seconds_left: float | None


def state(run: dict[str, Any]) -> str:
    """One of `STATES`. A run is lost if the process that took it is dead: the next `run` takes it up."""
    if run["status"] == "running":
        return "running" if alive(run["owner"], run["beat"]) else "lost"
    return "queued" if run["status"] == "pending" else run["status"]


def progress(folder: Path) -> Progress | None:
    """The progress of the run in `folder`, `<store>.runs/<key>`; None before it trains."""
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
    """The seconds from one epoch's end to the next, with testing and saving.

    `wall` seconds passed between the run's start, or its last resumption, and the end of its last epoch. The rows have
    the seconds of training alone: the last epochs whose training fits into `wall` are those of this time.
    """
    trained, count = 0.0, 0
    for row in reversed(rows):
        trained += row["seconds"]
        if trained > wall:
            break
        count += 1
    return wall / count if count else rows[-1]["seconds"]


def name(run: dict[str, Any]) -> str:
    """A run's name in printed lines: label, data set and seed."""
    return f"{run['label'] or run['spec']} on {run['dataset']}, seed {run['seed']}"


def progress_text(run: dict[str, Any], output: Path) -> str:
    """Epoch, accuracy and time left of a run, if its folder is on this machine."""
    now = progress(output / run["key"])
    if now is None:
        return "no epoch has begun yet, or its folder is on another machine"
    accuracy = "" if now.top1 is None else f", top-1 {now.top1:.2f} %"
    left = "" if now.seconds_left is None else f", about {duration(now.seconds_left)} left"
    return f"epoch {now.epoch} of {now.epochs} done{accuracy}{left}"


def lines(runs: Iterable[dict[str, Any]], output: Path) -> list[str]:
    """The lines about a store's runs, whose folders are in `output`: counts, then each run that is not done."""
    runs = list(runs)
    by_state = {each: [run for run in runs if state(run) == each] for each in STATES}
    report = [f"{len(runs)} runs: " + ", ".join(f"{len(found)} {each}" for each, found in by_state.items())]
    further = {
        "running": lambda run: f": {progress_text(run, output)}; by {run['owner'].rsplit(':', 1)[0]}",
        "lost": lambda run: f": {progress_text(run, output)}; its runner is dead, the next `run` takes it up",
        "failed": lambda run: f": {run['error']}",
        "queued": lambda run: "",
    }
    for each, what in further.items():
        report += [f"{each:<8} {name(run)}{what(run)}" for run in by_state[each]]
    return report


def duration(seconds: float) -> str:
    """Format seconds in the two largest units: 42 s, 5 min 10 s, 3 h 20 min, 2 d 4 h."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86400} d {seconds % 86400 // 3600} h"
