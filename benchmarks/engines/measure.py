"""The rounds: the contestants' processes take turns, one at a time, on a task that all have loaded.

with Contest({"ours": Ours, "torch": PlainTorch}, threads=2) as contest:
    contest.measure(task, rounds=7)["ours"]["seconds"]   # the median
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import numpy as np

from benchmarks.engines.contestants import Engine
from benchmarks.engines.process import EngineError, EngineProcess
from benchmarks.engines.task import Task

REST = 0.02  # seconds before a turn, in which the threads of the engine before stop spinning
Row = dict[str, Any]


class Contest:
    """The contestants' processes, started at once, and again for the next task if they died.

    Args:
        contestants: the engines by name; ratios are to the one called "ours".
        threads: of each engine.
    """

    def __init__(self, contestants: Mapping[str, type[Engine]], threads: int):
        self.contestants, self.threads = contestants, threads
        self.processes: dict[str, EngineProcess] = {}  # started in __enter__

    def measure(self, task: Task, rounds: int) -> dict[str, Row]:
        """The row of each contestant: seconds and differences, or why it `failed`.

        All load the task and are checked before the first round. A round asks each in turn; one more round before them
        warms up. A contestant that fails or dies is asked no more, and its times are dropped.
        """
        rows: dict[str, Row] = {}
        times: dict[str, list[float]] = {}
        for name in self.contestants:
            with _failing(rows, name):
                rows[name] = {"note": self._ask(name, "load", task)}
                rows[name] |= differences(*self._ask(name, "check"), task.logits)
                times[name] = []
        for number in range(rounds + 1):
            for name in list(times):
                with _failing(rows, name):
                    taken = self._ask(name, "round")
                    if number > 0:
                        times[name].append(taken)
                if "failed" in rows[name]:
                    del times[name]
        for name, taken in times.items():
            rows[name] |= {"seconds": statistics.median(taken), "min_seconds": min(taken), "all_seconds": taken}
        if "ours" in times:
            for name in times:
                rows[name]["over_ours"] = rows[name]["seconds"] / rows["ours"]["seconds"]
        return rows

    def _ask(self, name: str, question: str, *arguments: Any) -> Any:
        if question == "load" and not self.processes[name].alive:
            self.processes[name] = EngineProcess(self.contestants[name], self.threads)
        time.sleep(REST)
        return self.processes[name].ask(question, *arguments)

    def __enter__(self) -> Self:
        self.processes = {name: EngineProcess(engine, self.threads) for name, engine in self.contestants.items()}
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self.processes.values():
            process.close()


@contextmanager
def _failing(rows: dict[str, Row], name: str) -> Iterator[None]:
    """Turn an EngineError inside the `with` block into the contestant's row."""
    try:
        yield
    except EngineError as error:
        rows[name] = {"failed": str(error)}


def differences(logits: np.ndarray, own: np.ndarray | None, expected: np.ndarray) -> Row:
    """How far the logits `[N, classes]` are from those in float64: `own`, or else those `expected` of the task.

    Raises EngineError for logits that are not finite: such an engine is not timed.
    """
    expected = (expected if own is None else own)[: len(logits)]
    if not np.isfinite(logits).all():
        raise EngineError("its logits are not finite")
    return {
        "largest_difference": float(np.abs(logits - expected).max()),
        "same_class": float((logits.argmax(1) == expected.argmax(1)).mean()),
    }
