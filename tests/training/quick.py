"""A run of seconds, whose state the tests compare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import main
from st_utils.training import checkpoint

ROOT = Path(__file__).parents[2]
QUICK = [
    "--model", "spikformer(embed_dim=16, depth=1, num_heads=2, mlp_ratio=1.0, drop_path=0.2)", "--step", "2",
    "--img-size", "8", "--epochs", "2", "--train-images", "200", "--test-images", "53", "--batch-size", "40",
    "--device", "cpu", "--mixup", "0.5", "--reprob", "0.25", "--hflip", "0.5",
]  # fmt: skip


def run(output: Path, *arguments: str) -> int:
    return main.main([*QUICK, "--output", str(output), "--resume", "auto", *arguments])


def folder_of(output: Path) -> Path:
    (folder,) = [path for path in output.iterdir() if path.is_dir()]
    return folder


def last_state(output: Path) -> dict[str, Any]:
    return checkpoint.load(folder_of(output) / "last.safetensors")


def same(one: Any, other: Any) -> bool:
    """Equal to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
