"""Carry out the runs of a suite, each as `python main.py` in a process of its own.

    with Store("results.db") as store:
        store.add("smoke", runs)
        run_suite(store, runs, LocalLauncher(slots=2, output=Path("results.db.runs"), further={}))

A run's folder is `<store>.runs/<key>/`: a run that was killed is resumed there from its last whole epoch. A run that
fails is recorded with its last line, and the others go on; all that it printed stays in `<store>.runs/<key>.log` until
it is run again. Data that can't be read stop the suite before its first run.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import yaml

import registry
from benchmarks.leaderboard.store import Store, this_process
from benchmarks.leaderboard.suite import Run, option_words
from st_utils.errors import UserError
from st_utils.files import refusal
from st_utils.training.distributed import device_of
from st_utils.training.launch import model_step
from zoo.recipe import read_recipe

MAIN = Path(__file__).parents[2] / "main.py"
BEAT = 10.0  # seconds between heartbeats
POLL = 0.2  # seconds between looks at the processes


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its results, or why it failed, in one line; `printed` is all that its process printed."""

    key: str
    results: dict[str, Any] | None
    error: str | None = None
    printed: str = ""


class Launcher(Protocol):
    """Carries out runs, up to `slots` of them at once."""

    slots: int

    def check(self, runs: list[Run]) -> None:
        """Raise UserError where these runs can't have their data or device."""

    def start(self, run: Run) -> None:
        """Begin a run, or resume it."""

    def ended(self) -> list[Outcome]:
        """The runs that ended since the last call; waits a moment if none has."""

    def stop(self) -> None:
        """End the runs that are running."""


def run_suite(
    store: Store,
    runs: list[Run],
    launcher: Launcher,
    retry: bool = False,
    progress: Callable[[Run, Outcome], None] = lambda run, outcome: None,
    pulse: Callable[[], None] = lambda: None,
) -> None:
    """Carry out those of these runs that are not done, until none is left that this process may take.

    Args:
        retry: carry out failed runs again.
        progress: called when a run has ended.
        pulse: called every `BEAT` seconds while runs are carried out.

    Raises:
        UserError: the data or the device of the runs can't be used; then no run is begun.
    """
    owner, by_key = this_process(), {run.key: run for run in runs}
    closed = ("done",) if retry else ("done", "failed")
    states = {each["key"]: each["status"] for each in store.runs()}
    launcher.check([run for run in runs if states[run.key] not in closed])
    open_keys, active, beaten = list(by_key), 0, time.monotonic()
    try:
        while True:
            while active < launcher.slots and (found := store.claim(open_keys, owner, retry)):
                open_keys.remove(found["key"])
                launcher.start(by_key[found["key"]])
                active += 1
            if not active:
                return
            for outcome in launcher.ended():
                active -= 1
                if outcome.error is None:
                    store.finish(outcome.key, owner, outcome.results)
                else:
                    store.fail(outcome.key, owner, outcome.error)
                progress(by_key[outcome.key], outcome)
            if time.monotonic() - beaten > BEAT:
                store.beat(owner)
                pulse()
                beaten = time.monotonic()
    finally:
        launcher.stop()
        store.release(owner)


class LocalLauncher:
    """Carries out runs as processes on this machine.

    Args:
        slots: the number of runs at once; they share the machine's cores.
        output: the folder of the runs' folders and logs.
        further: settings of main.py for every run that change no result, such as data_dir.
    """

    def __init__(self, slots: int, output: Path, further: Mapping[str, Any]):
        self.slots, self.output, self.further = slots, output, further
        self.threads = max(1, (os.cpu_count() or 1) // slots)
        self._running: dict[str, tuple[subprocess.Popen, Any]] = {}

    def check(self, runs: list[Run]) -> None:
        """Raise UserError where the data or the device of these runs can't be used."""
        device_of(self.further.get("device", "auto"))
        check_data(runs, self.further)

    def start(self, run: Run) -> None:
        """Begin a run, or resume it."""
        log = open_log(self.output, run.key)
        process = subprocess.Popen(
            command(run, self.output, self.further),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={"OMP_NUM_THREADS": str(self.threads), **os.environ},
            preexec_fn=die_with_parent,
        )
        self._running[run.key] = process, log

    def ended(self) -> list[Outcome]:
        """The runs that ended since the last call; waits `POLL` seconds if none has."""
        done = [key for key, (process, _) in self._running.items() if process.poll() is not None]
        if not done:
            time.sleep(POLL)
        return [self._outcome(key) for key in done]

    def _outcome(self, key: str) -> Outcome:
        process, log = self._running.pop(key)
        with log:
            log.seek(0)
            printed = log.read().decode(errors="replace")
        return with_log(outcome(key, process.returncode, printed, self.output), self.output)

    def stop(self) -> None:
        """End the runs that are running; each may write a checkpoint for 30 s."""
        for process, log in self._running.values():
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()
            log.close()
        self._running.clear()


def open_log(output: Path, key: str) -> Any:
    """Open the log of a run, emptied. Raises UserError where it can't be made."""
    path = log_path(output, key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w+b")
    except OSError as error:
        raise refusal(path, error) from None


def log_path(output: Path, key: str) -> Path:
    """The file of all that a run prints."""
    return output / f"{key}.log"


def with_log(ended: Outcome, output: Path) -> Outcome:
    """The outcome; a failure's line ends with the path of its log."""
    if ended.error is None:
        return ended
    return replace(ended, error=f"{ended.error}; all that it said: {log_path(output, ended.key)}")


def check_data(runs: list[Run], further: Mapping[str, Any]) -> None:
    """Read every data set of these runs once, as the runs will. Raises UserError for one that can't be read.

    A data set that refuses the time steps or the frame size of one run, but not of another, fails in that run alone.
    """
    by_dataset: dict[str, dict[tuple, dict[str, Any]]] = {}
    for run in runs:
        offer = data_offer(run, further)
        by_dataset.setdefault(run.dataset, {})[tuple(offer.values())] = offer
    for dataset, offers in by_dataset.items():
        refused: list[UserError] = []
        for offer in offers.values():
            try:
                registry.create("dataset", dataset, **offer)
                break
            except UserError as error:
                refused.append(error)
        else:
            raise UserError(f"no run was begun, for {dataset} can't be used: {refused[0]}")


def data_offer(run: Run, further: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that main.py offers the run's data set: where its files are, the number and the size of frames."""
    recipe = {} if run.recipe == "none" else read_recipe(run.recipe).settings
    chosen = {**recipe, **run.settings, **further}
    places = {"data_dir": "data", "cache_dir": None, "download": False}
    size = chosen.get("event_size") or chosen.get("img_size")
    offer = {name: chosen.get(name, default) for name, default in places.items()}
    return {**offer, "step": model_step(run.spec), **({"event_size": size} if size else {})}


def command(run: Run, output: Path, further: Mapping[str, Any]) -> list[str]:
    """The command that carries out a run, or resumes it."""
    return [
        sys.executable,
        str(MAIN),
        *run.arguments(),
        "--output",
        str(output / run.key),
        "--resume",
        "auto",
        *option_words(further),
    ]


def outcome(key: str, status: int, printed: str, output: Path) -> Outcome:
    """The outcome of a run, from its process's exit status, from what it printed, and from its folder."""
    if status == 0:
        with contextlib.suppress(UserError, OSError, ValueError):
            return Outcome(key, results(output / key), printed=printed)
    lines = [line.strip() for line in printed.replace("\r", "\n").split("\n") if line.strip()]
    cause = next((line for line in reversed(lines) if line.startswith("error:")), lines[-1] if lines else "no output")
    name = signal.Signals(-status).name if status < 0 else f"status {status}"
    return Outcome(key, None, f"{cause.removeprefix('error: ')} ({name})", printed)


def results(folder: Path) -> dict[str, Any]:
    """The results of the finished run in `folder`; of several, of the last that ended. Raises UserError for none."""
    summaries = sorted(folder.glob("*/summary.json"), key=lambda path: path.stat().st_mtime)
    if not summaries:
        raise UserError(f"{folder} has no finished run")
    at = summaries[-1].parent
    profile = at / "profile.json"
    return {
        "summary": json.loads(summaries[-1].read_text()),
        "metrics": [json.loads(line) for line in (at / "metrics.jsonl").read_text().splitlines()],
        "profile": json.loads(profile.read_text()) if profile.is_file() else None,
        "arguments": yaml.safe_load((at / "args.yml").read_text()),
    }


def die_with_parent() -> None:
    """End this process when its parent dies (Linux only): else a killed runner's run would soon be run twice."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
