"""SIGTERM and SIGINT ask a run to stop: it finishes its step, writes a checkpoint and ends."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Stopped(Exception):  # noqa: N818  (it is not an error)
    """The run stopped because it was asked to, and can go on; `status` is what the process ends with: 128 + signal."""

    def __init__(self, number: int, epoch: int, step: int):
        super().__init__(
            f"{signal.Signals(number).name}: stopped in epoch {epoch} after step {step}, with a checkpoint; "
            "the same command with --resume auto goes on from there"
        )
        self.status = 128 + number


class StopRequests:
    """Inside a `with` block, the first signal is remembered in `asked`; a second SIGINT interrupts as ever."""

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.asked = 0

    def __enter__(self) -> StopRequests:
        self._before = {}
        if threading.current_thread() is threading.main_thread():  # others can't set handlers
            self._before = {number: signal.signal(number, self._remember) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = self.asked or number
