"""Engines for the tests of benchmarks/engines, whose processes are ready at once: they need numpy alone.

Each writes its turns into the file that `task.weights` names: "Steady load", "Steady infer", ...
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from benchmarks.engines.contestants import CannotTakeError, Engine
from benchmarks.engines.task import Task


class Steady(Engine):
    """Answers with the first pixels of each image, and says when it begins and ends."""

    def load(self, task: Task) -> str:
        self.file, self.calls, self.checks = Path(task.weights), 0, len(task.batches())
        self.timed = len(task.timed())
        self.say("load")
        return "fake"

    def infer(self, images: np.ndarray) -> np.ndarray:
        self.calls += 1
        self.say("begins")
        time.sleep(0.002)
        self.say("ends")
        return images[:, :3]

    @property
    def round(self) -> int:
        """The number of the round that it is in; 0 is the check, 1 warms up."""
        calls = self.calls - self.checks - 1
        return 0 if calls < 0 else 1 + calls // (1 + self.timed)

    def say(self, what: str) -> None:
        """Add a line to the file."""
        with self.file.open("a") as file:
            file.write(f"{type(self).__name__} {what}\n")


class Other(Steady):
    """The same by another name."""


class Killed(Steady):
    """Is killed in its third round, as by a system without memory."""

    def infer(self, images: np.ndarray) -> np.ndarray:
        logits = super().infer(images)
        if self.round == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return logits


class KilledOnce(Killed):
    """Is killed in its third round in the first task, and never again."""

    def infer(self, images: np.ndarray) -> np.ndarray:
        return (super() if self.file.name == "first" else super(Killed, self)).infer(images)


class Raises(Steady):
    """Fails in its second round."""

    def infer(self, images: np.ndarray) -> np.ndarray:
        if self.round == 2:
            raise RuntimeError("out of\nmemory")
        return super().infer(images)


class Wrong(Steady):
    """Is off by 0.25 in the last logit, so that another class is the largest in some images."""

    def infer(self, images: np.ndarray) -> np.ndarray:
        return super().infer(images) + np.array([0, 0, 0.25], np.float32)


class Unbounded(Steady):
    """Overflows."""

    def infer(self, images: np.ndarray) -> np.ndarray:
        return super().infer(images) + np.inf


class Absent(Steady):
    """Is not installed."""

    package = "no_such_engine"


class Unwilling(Steady):
    """Can't take the model."""

    def load(self, task: Task) -> str:
        raise CannotTakeError("has no such operator")


class NeedsFile(Steady):
    """Reads the exported model."""

    reads_onnx = True


class OwnWeights(Steady):
    """Has weights of its own, whose logits in float64 are the images' plus 1."""

    def load(self, task: Task) -> str:
        self.logits = task.logits + 1
        return super().load(task)

    def infer(self, images: np.ndarray) -> np.ndarray:
        return super().infer(images) + np.float32(1)


class Hangs(Steady):
    """Never loads."""

    def load(self, task: Task) -> str:
        time.sleep(600)
        return ""
