"""A run killed at any moment, and resumed each time, ends as one that was not."""

from __future__ import annotations

import json
import random
import re
import shutil
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from st_utils.errors import UserError
from st_utils.training import checkpoint
from st_utils.training.trainer import Trainer
from tests.processes import started
from tests.training.quick import folder_of, run, same

ROOT = Path(__file__).parents[2]
KILLS = 10
COMMAND = [
    "--model", "spikformer(embed_dim=16, depth=1, num_heads=2, mlp_ratio=1.0, drop_path=0.2)",
    "--attention", "statten", "--step", "2", "--img-size", "16", "--epochs", "14", "--batch-size", "50",
    "--train-images", "1000", "--test-images", "100", "--device", "cpu", "--ema", "0.9", "--mixup", "0.5",
    "--auto-augment", "rand-m9-n1-mstd0.4-inc1", "--reprob", "0.25",
]  # fmt: skip


def start(output: Path) -> BaseProcess:
    return started("main.py", *COMMAND, "--output", str(output), "--resume", "auto", told=output.with_suffix(".log"))


def status_of(process: BaseProcess) -> int:
    process.join()
    return process.exitcode


def epochs_written(output: Path) -> int:
    lines = [path.read_bytes().count(b"\n") for path in output.glob("*/metrics.jsonl")]
    return max(lines, default=0)


def final_state(output: Path) -> dict:
    (folder,) = output.iterdir()
    assert (folder / "summary.json").exists()
    return checkpoint.load(folder / "last.safetensors")


def test_kill_9_ten_times(tmp_path):
    """Each kill comes a random time after the run has begun to train (start-up times out of the way)."""
    assert status_of(start(tmp_path / "whole")) == 0
    dice, killed = random.Random(0), 0
    while killed < KILLS:
        before, process = epochs_written(tmp_path / "killed"), start(tmp_path / "killed")
        while process.is_alive() and epochs_written(tmp_path / "killed") == before:
            time.sleep(0.01)
        time.sleep(dice.uniform(0, 0.6))
        if not process.is_alive():
            break
        process.kill()
        process.join()
        killed += 1
    if killed == KILLS:
        assert status_of(start(tmp_path / "killed")) == 0
    assert killed == KILLS, f"the run ended after {killed} kills: give it more epochs"
    whole, resumed = final_state(tmp_path / "whole"), final_state(tmp_path / "killed")
    assert whole["epoch"] == resumed["epoch"] == 14
    for part in ("model", "ema"):
        for name, tensor in whole[part].items():
            assert torch.equal(tensor, resumed[part][name]), (part, name)
    for key, moments in whole["optimizer"]["state"].items():
        for name, value in moments.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(resumed["optimizer"]["state"][key][name]))


AVERAGED = ["--ema", "0.5", "--lr", "0.05", "--epochs", "4", "--warmup-epochs", "0"]


@pytest.fixture(scope="module")
def averaged(tmp_path_factory) -> Path:
    """The folder of a short run with a moving average."""
    output = tmp_path_factory.mktemp("averaged")
    assert run(output, *AVERAGED) == 0
    return folder_of(output)


def test_the_lines_in_the_documents_load_a_runs_weights(averaged):
    (code,) = re.findall(r"```python\n(.*?load_file.*?)```", (ROOT / "docs" / "training.md").read_text(), re.DOTALL)
    assert "runs/NAME" in code
    names: dict = {}
    exec(code.replace("runs/NAME", str(averaged)), names)
    state = checkpoint.load(averaged / "best.safetensors")
    assert same(dict(names["model"].state_dict()), dict(state["ema"]))
    assert not same(dict(state["ema"]), dict(checkpoint.load(averaged / "last.safetensors")["model"]))


@pytest.fixture
def weights_alone(averaged, tmp_path) -> Path:
    """The same folder without the files that only going on needs."""
    copy = shutil.copytree(averaged, tmp_path / "run")
    for path in copy.glob("*.state.safetensors"):
        path.unlink()
    return copy


def test_the_moving_average_is_what_is_tested(averaged, weights_alone, tmp_path, capsys):
    """As at the run's end, with the state beside the weights or without; folded, within the rounding of its print."""
    last = json.loads((averaged / "metrics.jsonl").read_text().splitlines()[-1])
    line = f"top-1 {last['top1']:.2f} %, loss {last['test_loss']:.4f}"
    assert "loss 2.3026" not in line, "ln 10, of weights as drawn: that would prove nothing"
    for folder in (averaged, weights_alone):
        assert run(tmp_path, *AVERAGED, "--eval", "--resume", str(folder)) == 0
        assert line in capsys.readouterr().out
    assert run(tmp_path, *AVERAGED, "--eval", "--fold", "--resume", str(averaged)) == 0
    assert line in capsys.readouterr().out


@pytest.mark.parametrize("how", ["--profile", "--audit"])
def test_weights_alone_are_profiled(averaged, weights_alone, how, tmp_path):
    (weights_alone / "profile.json").unlink()
    assert run(tmp_path, *AVERAGED, how, "--resume", str(weights_alone)) == 0
    one, other = (json.loads((at / "profile.json").read_text())["layers"] for at in (averaged, weights_alone))
    assert [{**layer, "ms": 0} for layer in one] == [{**layer, "ms": 0} for layer in other]
    assert any(layer["firing_rate"] for layer in one if layer.get("firing_rate"))


def test_weights_alone_are_not_trained(weights_alone, tmp_path, capsys):
    (weights_alone / "summary.json").unlink()
    assert run(tmp_path, *AVERAGED, "--resume", str(weights_alone)) == 2
    told = capsys.readouterr().err
    assert told.startswith(
        f"error: no usable checkpoint: {weights_alone}/last.safetensors: its state, which a run needs"
    )
    assert "Traceback" not in told


def test_weights_alone_are_no_state_to_go_on_from(averaged):
    with pytest.raises(UserError, match="holds weights alone: test it, or go on from its run's folder"):
        Trainer.load(None, checkpoint.load(averaged / "best.safetensors"))
