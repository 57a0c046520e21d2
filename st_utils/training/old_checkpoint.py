"""Checkpoints of version 0.1.0, read and never written: one file for everything, the weights in it named "model.*".

They are packed as today's states are; only their digest is over less: format, state and tensors.

    file = read(path, old_checkpoint.FORMAT)
    old_checkpoint.verify(path, file)
    unpack_file(path, file)["model"]
"""

from __future__ import annotations

from pathlib import Path

from st_utils.training import tensor_file
from st_utils.training.tensor_file import TensorFile

FORMAT = "spiking-transformer-zoo checkpoint 1"


def verify(path: Path, file: TensorFile) -> None:
    """Raise CheckpointError unless the file's digest is that of its content."""
    tensor_file.verify(path, file, known=[FORMAT, file.metadata["state"]])
