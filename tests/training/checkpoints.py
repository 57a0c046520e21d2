"""States to save, and what the tests of checkpoints compare."""

import contextlib
import math
import struct

import numpy as np
import pytest
import safetensors.torch
import torch

from st_utils.training.checkpoint import (
    save_rotating,
)

BOTH = ["c.safetensors", "c.state.safetensors"]


def same(one, other):
    """Equal to the bit: types, key order, dtypes, shapes, strides, bytes."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        described = [(item.dtype, item.shape, item.stride()) for item in (one, other)]
        raw = [item.contiguous().reshape(-1).view(torch.uint8) for item in (one, other)]
        return described[0] == described[1] and torch.equal(*raw)
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other) or (math.isnan(one) and math.isnan(other))
    return one == other


def tiny(epoch=0):
    weights = {"w": torch.full((3,), epoch / 7)}
    return {"epoch": epoch, "model": weights, "é": {1: torch.tensor(epoch)}, "t": (epoch / 3,)}


def saved(folder, state):
    save_rotating(folder, "c", state)
    return folder / "c.safetensors"


def two_saves(folder):
    save_rotating(folder, "last", tiny(1))
    save_rotating(folder, "last", tiny(2))


def parts(path):
    """A file's tensors and metadata, as the safetensors package reads them."""
    with safetensors.safe_open(path, "pt") as file:
        return safetensors.torch.load_file(path), file.metadata()


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@contextlib.contextmanager
def refused(kind, *parts):
    with pytest.raises(kind) as error:
        yield
    assert "\n" not in str(error.value) and all(str(part) in str(error.value) for part in parts), error.value
