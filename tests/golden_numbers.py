"""Reads the golden files: numbers that the authors' own code computed on weights that anyone can redraw."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared" / "golden"
FOLDER = Path(os.environ.get("ZOO_GOLDEN", SHARED if SHARED.is_dir() else HERE))


def files(*patterns: str) -> list[Path]:
    """The golden files of these names, held-out ones among them where the folder has them, each once."""
    found = {path.name: path for folder in (HERE, FOLDER) for name in patterns for path in folder.glob(f"{name}.json")}
    return [found[name] for name in sorted(found)]


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def single(path: Path) -> dict | None:
    """What the authors' class gives in float32 on the weights of a golden file, where `f32/` has that."""
    places = (folder / "f32" / f"{path.stem}_f32.json" for folder in (path.parent, HERE))
    return next((read(place) for place in places if place.exists()), None)


def rng(key: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(key.encode()))


def draw(key: str, entry: dict) -> Tensor:
    """A tensor by the rules of the golden README: float32 draws, as float64 (counts as int64)."""
    shape, kind, source = entry["shape"], entry["kind"], rng(key)
    if kind == "count":
        return torch.zeros(shape, dtype=torch.int64)
    if kind == "value":
        return torch.tensor(entry["value"], dtype=torch.float64).reshape(shape)
    fan_in = int(np.prod(shape[1:]))
    values = {
        "running_mean": lambda: source.normal(0, 0.1, shape),
        "running_var": lambda: source.uniform(0.5, 1.5, shape),
        "norm_weight": lambda: source.uniform(0.8, 1.6, shape),
        "norm_bias": lambda: source.normal(0.1, 0.2, shape),
        "weight": lambda: source.normal(0, entry.get("gain", 1.0) / np.sqrt(fan_in), shape),
        "bias": lambda: source.normal(0, 0.1, shape),
        "uniform": lambda: source.uniform(0, 1, shape),
        "poisson": lambda: source.poisson(entry["lam"], shape),
    }[kind]()
    return torch.from_numpy(np.asarray(values).astype(np.float32)).double()


def state_dict(golden: dict) -> dict[str, Tensor]:
    return {entry["key"]: draw(entry["key"], entry) for entry in golden["state_dict"]}


def tensor(entry: dict) -> Tensor:
    return torch.tensor(entry["data"], dtype=torch.float64).reshape(entry["shape"])


def loss_of(output: Tensor, train: dict | None = None) -> Tensor:
    """The golden files' loss: the flat output times fixed normal weights, summed.

    The weights are float32 draws. Some files have them as drawn, in float64: those whose own output and loss, `train`,
    say so.
    """
    weights = rng("loss").normal(0, 1, output.numel())
    rounded = weights.astype(np.float32).astype(np.float64)
    if train is not None:
        theirs = np.asarray(train["output"]["data"])
        weights = min((rounded, weights), key=lambda w: abs((theirs * w).sum() - train["loss"]))
    else:
        weights = rounded
    return (output.flatten() * torch.from_numpy(weights)).sum()
