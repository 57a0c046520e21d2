"""The newest timm beside the one that is installed: the same learning rates, steps, mixed batches, pictures, logits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from st_utils.errors import UserError
from st_utils.training.optim import build_optimizer, build_schedule
from st_utils.training.settings import Settings
from tests.training import timm_numbers

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def newest(tmp_path_factory) -> dict:
    """What `timm_numbers` gives with the newest timm, which stands first on the path of a process of its own."""
    folder, file = tmp_path_factory.mktemp("timm"), tmp_path_factory.mktemp("numbers") / "numbers.pt"
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--retries", "1", "--timeout", "10"]
    install = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), "timm>=1.0"]
    try:
        done = subprocess.run(install, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        pytest.skip("no package index answers within a minute")
    if done.returncode:
        pytest.skip(f"no package index gives timm: {(done.stderr.strip() or 'no reason').splitlines()[-1]}")
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    script = [sys.executable, timm_numbers.__file__, str(file)]
    done = subprocess.run(script, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return torch.load(file)


def test_every_number_is_the_same(newest):
    assert int(newest["version"].split(".")[0]) >= 1
    here, there = timm_numbers.numbers(), newest["numbers"]
    assert here.keys() == there.keys()
    assert len(here) > 60
    for name, value in here.items():
        assert value.dtype == there[name].dtype, name
        assert value.shape == there[name].shape, name
        assert value.double().abs().sum() > 0, name
        torch.testing.assert_close(
            there[name], value, rtol=1e-6, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("sched", timm_numbers.SCHEDULES)
def test_every_schedule_of_the_settings_is_one_of_this_timm(sched):
    settings = Settings(sched=sched, epochs=10, milestones=(5,) if sched == "multistep" else None)
    build_schedule(build_optimizer(torch.nn.Linear(2, 2), settings), settings).step(1)


def test_plateau_runs_or_says_which_timm_does_not_fit():
    settings = Settings(sched="plateau", epochs=10)
    optimizer = build_optimizer(torch.nn.Linear(2, 2), settings)
    if timm.__version__ == "0.5.4":
        with pytest.raises(UserError, match=r"of timm 0\.5\.4 does not fit this torch"):
            build_schedule(optimizer, settings)
    else:
        build_schedule(optimizer, settings).step(1, 50.0)
