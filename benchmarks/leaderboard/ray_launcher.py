"""Carry out a suite's runs on a Ray cluster; runner.py has the launcher for one machine, and what a launcher does.

python -m benchmarks.leaderboard run --suite smoke --launcher ray --ray-address HOST:6379
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import registry
from benchmarks.leaderboard.runner import Outcome, check_data, command, die_with_parent, open_log, outcome, with_log
from benchmarks.leaderboard.suite import Run
from st_utils.errors import UserError


class RayLauncher:
    """Carries out runs on a Ray cluster (PyPI: ray) and gets their results back; no folder is shared.

    Args:
        output: the folder of the runs' folders, on every machine.
        further: settings of main.py for every run that change no result, such as data_dir.
        address: the cluster's; None: the cluster that `ray.init` finds, or a new one on this machine.
        cpus, gpus: cores and GPUs per run.

    Raises:
        UserError: Ray is not installed.
    """

    def __init__(
        self,
        output: Path,
        further: Mapping[str, Any],
        address: str | None = None,
        cpus: float = 1,
        gpus: float = 0,
    ):
        try:
            import ray
        except ImportError:
            raise UserError("--launcher ray needs Ray: pip install ray") from None
        self._ray = ray
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False)
        self.slots = max(1, int(ray.cluster_resources().get("CPU", 1) // cpus))
        self._remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=2)(_on_a_node)
        self._check = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=2)(_check_on_a_node)
        self._output, self._arguments = output, (str(output.absolute()), further, max(1, int(cpus)))
        self._running: dict[Any, str] = {}

    def check(self, runs: list[Run]) -> None:
        """Check the data on one of the cluster's machines: this one need not have them."""
        if problem := self._ray.get(self._check.remote(runs, self._arguments[1])):
            raise UserError(problem)

    def start(self, run: Run) -> None:
        """Begin a run."""
        self._running[self._remote.remote(run, *self._arguments)] = run.key

    def ended(self) -> list[Outcome]:
        """The runs that ended since the last call; waits up to a second for one."""
        done, _ = self._ray.wait(list(self._running), timeout=1.0)
        return [self._outcome(ref) for ref in done]

    def _outcome(self, ref: Any) -> Outcome:
        key = self._running.pop(ref)
        try:
            outcome = self._ray.get(ref)
            with open_log(self._output, key) as log:
                log.write(outcome.printed.encode())
            return with_log(outcome, self._output)
        except self._ray.exceptions.RayError as error:  # such as a lost machine
            return Outcome(key, None, f"{type(error).__name__}: {str(error).splitlines()[0]}")

    def stop(self) -> None:
        """End the runs that are running."""
        for ref in self._running:
            self._ray.cancel(ref, force=True)
        self._running.clear()


def _check_on_a_node(runs: list[Run], further: Mapping[str, Any]) -> str | None:
    """Check the runs' data in a Ray worker: the first fault in one line, or None."""
    for plugin in dict.fromkeys(plugin for run in runs for plugin in run.plugins):
        registry.load_plugin(plugin)
    try:
        check_data(runs, further)
    except UserError as error:
        return str(error)
    return None


def _on_a_node(run: Run, output: str, further: Mapping[str, Any], threads: int) -> Outcome:
    """Carry out one run in a Ray worker."""
    done = subprocess.run(
        command(run, Path(output), further),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        preexec_fn=die_with_parent,
        check=False,
    )
    return outcome(run.key, done.returncode, done.stdout.decode(errors="replace"), Path(output))
