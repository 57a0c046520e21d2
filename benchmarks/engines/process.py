"""An engine in a process of its own, which stays alive between its turns.

    with EngineProcess(Ours) as process:
        process.ask("load", task)   # "float32"
        process.ask("check")        # logits of all batches, and those they are to be compared with
        process.ask("round")        # seconds per batch

Engines bring thread pools that would fight for the cores in one process. A process computes only between a question and
its answer. Its OpenMP threads sleep between parallel regions (`OMP_WAIT_POLICY=PASSIVE`), so that they do not take the
cores in another's turn; the pools of ONNX Runtime and OpenVINO are not OpenMP's, and spin as they do by default.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import numpy as np

from benchmarks.engines.contestants import CannotTakeError, Engine
from benchmarks.engines.task import Task

WAIT_POLICY = "PASSIVE"
PATIENCE = 600.0  # seconds until an engine that does not answer is given up
_context = multiprocessing.get_context("spawn")  # a fork would inherit this process's threads' locks


class EngineError(Exception):
    """An engine failed, or its process ended; the text is one line for the table."""


class EngineProcess:
    """A process with one engine. Raises EngineError from `ask` when the engine fails; the process may then be dead."""

    def __init__(self, engine: type[Engine], threads: int = 1):
        self._connection, other = _context.Pipe()
        self._process = _context.Process(target=serve, args=(other, engine, threads), daemon=True)
        self._process.start()
        other.close()

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return self._process.is_alive()

    @property
    def pid(self) -> int | None:
        """The process's number."""
        return self._process.pid

    def ask(self, question: str, *arguments: Any, patience: float = PATIENCE) -> Any:
        """The answer to "load" (with a task), "check" or "round", see `Served`."""
        try:
            self._connection.send((question, arguments))
            if not self._connection.poll(patience):
                self.close()
                raise EngineError(f"no answer within {patience:g} seconds")
            failed, answer = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(10)
            raise EngineError(_ending(self._process.exitcode)) from error
        if failed:
            raise EngineError(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class Served:
    """The engine's side of the questions."""

    def __init__(self, engine: type[Engine]):
        self.kind = engine

    def load(self, task: Task) -> str:
        """Take a task in place of the one before; returns what the table says of the engine."""
        if self.kind.package:
            importlib.import_module(self.kind.package)  # before anything else can miss it
        if self.kind.reads_onnx and task.onnx is None:
            raise CannotTakeError(task.onnx_problem)
        self.engine, self.batches, self.timed = self.kind(), task.batches(), task.timed()
        return self.engine.load(task)

    def check(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The logits of all batches, `[N, classes]`, and the engine's own float64 logits if its weights are its own."""
        return np.concatenate([self.engine.infer(batch) for batch in self.batches]), self.engine.logits

    def round(self) -> float:
        """Seconds per batch: a call that does not count, for the caches, then one for each of the first batches."""
        self.engine.infer(self.timed[-1])
        start = time.perf_counter()
        for batch in self.timed:
            self.engine.infer(batch)
        return (time.perf_counter() - start) / len(self.timed)


def serve(connection: Connection, engine: type[Engine], threads: int) -> None:
    """Answer questions until the asking process closes the connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the asking process's business
    os.environ |= {"OMP_WAIT_POLICY": WAIT_POLICY, "OMP_NUM_THREADS": str(threads)}  # read when torch is imported
    from st_utils.kernels.common.allocator import keep_freed_memory

    keep_freed_memory()
    for module in engine.imports:
        importlib.import_module(module)
    served = Served(engine)
    while True:
        try:
            question, arguments = connection.recv()
        except EOFError:
            return
        try:
            connection.send((False, getattr(served, question)(*arguments)))
        except Exception as error:  # the engine's; the row says so, and the others go on
            connection.send((True, _one_line(error, engine)))


def _one_line(error: Exception, engine: type[Engine]) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == engine.package:
        return f"not installed: pip install {engine.package}"
    words = " ".join(str(error).split())[:300]
    return words if isinstance(error, CannotTakeError) else f"{type(error).__name__}: {words}"


def _ending(status: int | None) -> str:
    """How the process ended, in words."""
    if status is not None and status < 0:
        return f"its process was ended by {signal.Signals(-status).name}"
    return f"its process ended with status {status}"
