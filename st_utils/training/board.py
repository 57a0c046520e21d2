"""Write a run's metrics for TensorBoard.

with Board(folder, epoch=0) as board:    # folder: the run's RunFolder
    board.add({"epoch": 1, "train_loss": 2.1, "top1": 31.0})
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from st_utils.files import refusal
from st_utils.training.run_folder import RunFolder


class Board:
    """Writes the metrics of epochs after `epoch` to `tensorboard/` in a run's folder.

    What was written for later epochs before the run was resumed is deleted. Without a folder nothing is written.
    Raises UserError where the system refuses to write.
    """

    def __init__(self, folder: RunFolder | None, epoch: int):
        self.path = folder and folder.path / "tensorboard"
        self._epoch = epoch
        self._writer = None

    def __enter__(self) -> Board:
        if self.path:
            from torch.utils.tensorboard import SummaryWriter  # slow to import, and used here only

            with self._named_refusals():
                self._writer = SummaryWriter(str(self.path), purge_step=self._epoch + 1)
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            with contextlib.suppress(OSError):  # metrics.jsonl has all metrics
                self._writer.close()

    def add(self, row: dict[str, Any]) -> None:
        """Write one epoch's metrics, a dict with its number in `epoch`; values that are None are left out."""
        if self._writer is None:
            return
        with self._named_refusals():
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    self._writer.add_scalar(name, value, row["epoch"])
            self._writer.flush()

    @contextlib.contextmanager
    def _named_refusals(self) -> Iterator[None]:
        """Turn the system's errors inside the block into UserErrors that name the folder."""
        try:
            yield
        except OSError as error:
            raise refusal(self.path, error) from error
