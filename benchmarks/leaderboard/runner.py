"""Carries out the runs of a suite, each as `python main.py` in a process of its own.

A run's folder lies beside the store, in `<store>.runs/`: a run that was killed goes on there from its last whole
epoch. A run that fails is recorded with its last line and stops no other.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import yaml

from benchmarks.leaderboard.store import Store, this_process
from benchmarks.leaderboard.suite import Run
from st_utils.errors import UserError

MAIN = Path(__file__).parents[2] / "main.py"
BEAT = 10.0  # seconds between heartbeats
POLL = 0.2  # seconds between looks at the processes


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its results, or the line that says why it failed."""

    key: str
    results: dict[str, Any] | None
    error: str | None = None


class Launcher(Protocol):
    """Where runs are carried out; `slots` at once."""

    slots: int

    def start(self, run: Run) -> None: ...

    def ended(self) -> list[Outcome]:
        """The runs that ended since the last call; waits a moment where none has."""

    def stop(self) -> None:
        """End what still runs."""


def run_suite(
    store: Store,
    runs: list[Run],
    launcher: Launcher,
    retry: bool = False,
    progress: Callable[[Run, Outcome], None] = lambda run, outcome: None,
) -> None:
    """Run what is not done of these runs, until none is left that this process may take."""
    owner, by_key = this_process(), {run.key: run for run in runs}
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
                beaten = time.monotonic()
    finally:
        launcher.stop()
        store.release(owner)


class LocalLauncher:
    """Processes on this machine.

    Args:
        slots: runs at once; they share the machine's cores.
        output: folder of the runs' folders.
        further: arguments of main.py for every run that change no result, such as --data-dir.
    """

    def __init__(self, slots: int, output: Path, further: list[str]):
        self.slots, self.output, self.further = slots, output, further
        self.threads = max(1, (os.cpu_count() or 1) // slots)
        self._running: dict[str, tuple[subprocess.Popen, Any]] = {}

    def start(self, run: Run) -> None:
        log = tempfile.TemporaryFile()  # noqa: SIM115 (closed when the run ends)
        process = subprocess.Popen(
            command(run, self.output, self.further),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={"OMP_NUM_THREADS": str(self.threads), **os.environ},
            preexec_fn=_die_with_parent,
        )
        self._running[run.key] = process, log

    def ended(self) -> list[Outcome]:
        done = [key for key, (process, _) in self._running.items() if process.poll() is not None]
        if not done:
            time.sleep(POLL)
        return [self._outcome(key) for key in done]

    def _outcome(self, key: str) -> Outcome:
        process, log = self._running.pop(key)
        with log:
            log.seek(0)
            lines = log.read().decode(errors="replace").replace("\r", "\n").split("\n")
        return outcome(key, process.returncode, lines, self.output)

    def stop(self) -> None:
        for process, log in self._running.values():
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()
            log.close()
        self._running.clear()


def command(run: Run, output: Path, further: list[str]) -> list[str]:
    """The command that does a run, resuming it where it was begun."""
    return [
        sys.executable,
        str(MAIN),
        *run.arguments(),
        "--output",
        str(output / run.key),
        "--resume",
        "auto",
        *further,
    ]


def outcome(key: str, status: int, lines: list[str], output: Path) -> Outcome:
    """What a run's process left behind."""
    if status == 0:
        with contextlib.suppress(UserError, OSError, ValueError):
            return Outcome(key, results(output / key))
    said = [line.strip() for line in lines if line.strip()]
    cause = next((line for line in reversed(said) if line.startswith("error:")), said[-1] if said else "no output")
    name = signal.Signals(-status).name if status < 0 else f"status {status}"
    return Outcome(key, None, f"{cause.removeprefix('error: ')} ({name})")


def results(folder: Path) -> dict[str, Any]:
    """What a finished run's folder says. `folder` holds that one run's folder."""
    summaries = sorted(folder.glob("*/summary.json"))
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


def _die_with_parent() -> None:
    """A run must not outlive a killed runner, or two processes would work on it (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class RayLauncher:
    """Runs on a Ray cluster (PyPI: ray), each on `cpus` cores; the results travel back, no folder is shared.

    Args:
        address: of the cluster; none: what `ray.init` finds, or one on this machine.
        output: folder of the runs' folders, on every machine.
    """

    def __init__(self, output: Path, further: list[str], address: str | None = None, cpus: float = 1, gpus: float = 0):
        try:
            import ray
        except ImportError:
            raise UserError("--launcher ray needs Ray: pip install ray") from None
        self._ray = ray
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False)
        self.slots = max(1, int(ray.cluster_resources().get("CPU", 1) // cpus))
        self._remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=2)(_on_a_node)
        self._arguments = str(output.absolute()), further, max(1, int(cpus))
        self._running: dict[Any, str] = {}

    def start(self, run: Run) -> None:
        self._running[self._remote.remote(run, *self._arguments)] = run.key

    def ended(self) -> list[Outcome]:
        done, _ = self._ray.wait(list(self._running), timeout=1.0)
        return [self._outcome(ref) for ref in done]

    def _outcome(self, ref: Any) -> Outcome:
        key = self._running.pop(ref)
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayError as error:  # a node that was lost, say
            return Outcome(key, None, f"{type(error).__name__}: {str(error).splitlines()[0]}")

    def stop(self) -> None:
        for ref in self._running:
            self._ray.cancel(ref, force=True)
        self._running.clear()


def _on_a_node(run: Run, output: str, further: list[str], threads: int) -> Outcome:
    """One run in a Ray worker."""
    done = subprocess.run(
        command(run, Path(output), further),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        preexec_fn=_die_with_parent,
        check=False,
    )
    return outcome(run.key, done.returncode, done.stdout.decode(errors="replace").split("\n"), Path(output))
