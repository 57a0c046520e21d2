"""Writes a checkpoint as version 0.1.0 did: one file with the whole state, its digest over format, state and tensors.

That it is what that version wrote shows in `test_the_writer_is_true_to_a_released_file`.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch

from st_utils.training import checkpoint
from st_utils.training.packer import Packer

FORMAT = "spiking-transformer-zoo checkpoint 1"
DTYPES = {"torch.float32": "F32", "torch.int64": "I64", "torch.float16": "F16", "torch.bool": "BOOL"}


def write_old(path: Path, state: dict[str, Any]) -> None:
    """Write the state to one file of the old format."""
    packer = Packer()
    text = json.dumps(packer.pack(state), separators=(",", ":"))
    known = [[n, {"dtype": DTYPES[str(t.dtype)], "shape": list(t.shape)}] for n, t in sorted(packer.tensors.items())]
    digest = hashlib.sha256(json.dumps([FORMAT, text, known]).encode())
    for _, tensor in sorted(packer.tensors.items()):
        digest.update(tensor.numpy().tobytes())
    metadata = {"format": FORMAT, "state": text, "sha256": digest.hexdigest()}
    safetensors.torch.save_file(packer.tensors, path, metadata)


def make_old(folder: Path) -> None:
    """Turn the checkpoints in a run's folder into what version 0.1.0 would have left there."""
    last, prev = checkpoint.rotating_paths(folder, "last")
    best = folder / "best.safetensors"
    for path in (last, prev):
        if path.exists():
            write_old(path, checkpoint.load(path))
            checkpoint.state_path(path).unlink()
    if best.exists():
        weights = checkpoint.load(best)
        write_old(best, {**checkpoint.load(last), **weights})  # it had the whole state, too
