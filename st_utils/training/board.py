"""A run's metrics for TensorBoard."""

from __future__ import annotations

import contextlib
from typing import Any

from st_utils.files import refusal
from st_utils.training.run_folder import RunFolder


class Board:
    """Writes lines of metrics to `tensorboard/` of a run's folder; without a folder it does nothing.

    Raises UserError where the system refuses to write.
    """

    def __init__(self, folder: RunFolder | None, epoch: int):
        self.path = folder and folder.path / "tensorboard"
        self._epoch = epoch
        self._writer = None

    def __enter__(self) -> Board:
        if self.path:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and used here only

            with self._told():
                self._writer = SummaryWriter(str(self.path), purge_step=self._epoch + 1)
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            with contextlib.suppress(OSError):  # what matters is in metrics.jsonl
                self._writer.close()

    def add(self, row: dict[str, Any]) -> None:
        """Write the numbers of one epoch."""
        with self._told():
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    self._writer.add_scalar(name, value, row["epoch"])
            self._writer.flush()

    @contextlib.contextmanager
    def _told(self):
        try:
            yield
        except OSError as error:
            raise refusal(self.path, error) from error
