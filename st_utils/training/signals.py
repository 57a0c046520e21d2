"""Stop a run on SIGTERM or SIGINT: it finishes its step, writes a checkpoint and ends.

with StopRequests() as requests:
    for step in range(100):
        ...
        if requests.asked:               # the signal's number
            raise Stopped(requests.asked, epoch=1, step=step)
"""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Stopped(Exception):  # noqa: N818  (it is not an error)
    """Raised when a run has stopped because of signal `number`; it can be resumed.

    `status` is the process's exit status, 128 + number.
    """

    def __init__(self, number: int, epoch: int, step: int):
        super().__init__(
            f"{signal.Signals(number).name}: stopped in epoch {epoch} after step {step}, with a checkpoint; "
            "the same command with --resume auto goes on from there"
        )
        self.status = 128 + number


class StopRequests:
    """Catches SIGTERM and SIGINT inside a `with` block; `asked` is the first signal's number, 0 before it.

    A second SIGINT raises KeyboardInterrupt at once.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.asked = 0

    def __enter__(self) -> StopRequests:
        self._before = {}
        if threading.current_thread() is threading.main_thread():  # other threads can't set handlers
            self._before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = self.asked or number
