"""A run killed at any moment, and resumed each time, ends as one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from st_utils.training import checkpoint

ROOT = Path(__file__).parents[2]
KILLS = 10
COMMAND = [
    sys.executable, "main.py",
    "--model", "spikformer(embed_dim=16, depth=1, num_heads=2, mlp_ratio=1.0, drop_path=0.2)",
    "--attention", "statten", "--step", "2", "--img-size", "16", "--epochs", "14", "--batch-size", "50",
    "--train-images", "1000", "--test-images", "100", "--device", "cpu", "--ema", "0.9", "--mixup", "0.5",
    "--auto-augment", "rand-m9-n1-mstd0.4-inc1", "--reprob", "0.25",
]  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def start(output: Path) -> subprocess.Popen:
    command = [*COMMAND, "--output", str(output), "--resume", "auto"]
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def epochs_written(output: Path) -> int:
    lines = [path.read_bytes().count(b"\n") for path in output.glob("*/metrics.jsonl")]
    return max(lines, default=0)


def final_state(output: Path) -> dict:
    (folder,) = output.iterdir()
    assert (folder / "summary.json").exists()
    return checkpoint.load(folder / "last.safetensors")


def test_kill_9_ten_times(tmp_path):
    """Each kill comes a random time after the run has begun to train (import times out of the way)."""
    assert start(tmp_path / "whole").wait() == 0
    dice, killed = random.Random(0), 0
    while killed < KILLS:
        before, process = epochs_written(tmp_path / "killed"), start(tmp_path / "killed")
        while process.poll() is None and epochs_written(tmp_path / "killed") == before:
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.6))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
    if killed == KILLS:
        assert start(tmp_path / "killed").wait() == 0
    assert killed == KILLS, f"the run ended after {killed} kills: give it more epochs"
    whole, resumed = final_state(tmp_path / "whole"), final_state(tmp_path / "killed")
    assert whole["epoch"] == resumed["epoch"] == 14
    for part in ("model", "ema"):
        for name, tensor in whole[part].items():
            assert torch.equal(tensor, resumed[part][name]), (part, name)
    for key, moments in whole["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(resumed["optimizer"]["state"][key][name]))
