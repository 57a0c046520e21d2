"""Several processes, by torchrun, do what one does: the same draws and losses, every test image once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from st_utils.batch_share import micro_batch, rand_per_image
from st_utils.data import DomainPair
from st_utils.training import launch
from st_utils.training.trainer import Trainer
from tests.training.quick import QUICK, ROOT, folder_of, last_state, run

# 35 steps in which the loss falls; synchronised norms, every kind of randomness
EPOCH = [
    "--model", "spikformer(embed_dim=32, depth=1, num_heads=2, mlp_ratio=2.0, drop_path=0.1)", "--img-size", "16",
    "--train-images", "1400", "--epochs", "1", "--lr", "1e-2", "--warmup-epochs", "0", "--clip-grad", "5", "--sync-bn",
]  # fmt: skip


def torchrun(*arguments: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes, **options)


def spied_losses(monkeypatch, dtype: torch.dtype = torch.float32) -> list[float]:
    """The losses of the steps of runs from here on, which compute in this precision."""
    step, to_device, prepared, losses = Trainer.step, Trainer.to_device, launch.prepared, []

    def spied(self, *arguments, **options):
        result = step(self, *arguments, **options)
        losses.append(result[0])
        return result

    def in_precision(self, inputs):
        inputs = to_device(self, inputs)
        return inputs if isinstance(inputs, DomainPair) else inputs.to(dtype)  # of a pair each was converted

    monkeypatch.setattr(Trainer, "step", spied)
    monkeypatch.setattr(Trainer, "to_device", in_precision)
    monkeypatch.setattr(launch, "prepared", lambda *arguments: prepared(*arguments).to(dtype))
    return losses


SCRIPT = """
import json, sys, torch
torch.set_num_threads(1)
from st_utils.training import distributed
from tests.training.quick import run
from tests.training.test_distributed import DTYPES, spied_losses
class Patch:
    setattr = staticmethod(setattr)
dtype = DTYPES[sys.argv[3]]
losses = spied_losses(Patch, dtype)
assert run(sys.argv[1], *sys.argv[4:]) == 0
json.dump(losses, open(f"{sys.argv[2]}.{distributed.rank()}", "w"))
"""
DTYPES = {"float32": torch.float32, "float64": torch.float64}


@pytest.mark.parametrize(("precision", "steps", "tolerance"), [("float64", 35, 1e-9), ("float32", 12, 1e-5)])
def test_two_processes_give_the_losses_of_one(tmp_path, monkeypatch, precision, steps, tolerance):
    """In double precision over the epoch. In single, until rounding tips the first spike, after which runs differ."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = torchrun(str(script), str(tmp_path / "two"), str(tmp_path / "losses"), precision, *EPOCH)
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    one = spied_losses(monkeypatch, DTYPES[precision])
    assert run(tmp_path / "one", *EPOCH) == 0
    first, second = (json.loads((tmp_path / f"losses.{rank}").read_text()) for rank in (0, 1))
    assert first == second, "every process knows the loss of the whole batch"
    assert len(one) == 35
    assert np.mean(one[-10:]) < one[0] - 0.05, "a model that learns nothing would prove nothing"
    assert np.abs(np.subtract(one, first))[:steps].max() < tolerance
    folders = [folder_of(tmp_path / name) for name in ("one", "two")]
    one, two = (json.loads((folder / "summary.json").read_text()) for folder in folders)
    assert (two["processes"], one["processes"]) == (2, 1)
    if precision == "float64":
        assert two["top1"] == one["top1"]
        assert two["train_top1"] == one["train_top1"], "counts of all processes, not of the first"
        assert two["test_loss"] == pytest.approx(one["test_loss"], abs=1e-6)  # testing takes float32 logits
        assert two["firing_rate"] == pytest.approx(one["firing_rate"], abs=1e-9)
        alone, shared = (json.loads((folder / "pictures" / "confusion.json").read_text()) for folder in folders)
        assert shared["matrix"] == alone["matrix"]
        assert shared["images"] == 53, "batches of 40 and 13: each image once"
        assert [image["index"] for image in shared["worst"]] == [image["index"] for image in alone["worst"]]


def test_evaluation_sees_every_image_once(tmp_path, capsys):
    """53 test images in batches of 40 and of 13, on two processes: the numbers that one process gives."""
    assert run(tmp_path, "--epochs", "1") == 0
    capsys.readouterr()
    assert run(tmp_path, "--epochs", "1", "--eval") == 0
    alone = [line for line in capsys.readouterr().out.splitlines() if "top-1" in line]
    process = torchrun("main.py", *QUICK, "--epochs", "1", "--output", str(tmp_path), "--resume", "auto", "--eval")
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    assert [line for line in told.splitlines() if "top-1" in line] == alone


def test_a_killed_process_ends_the_job_which_resumes(tmp_path):
    """One of two is killed; the other tells it and ends. Then SIGTERM to torchrun: a checkpoint within the epoch."""
    command = ["main.py", *QUICK, "--train-images", "1400", "--epochs", "400", "--output", str(tmp_path)]
    process = torchrun(*command, "--resume", "auto")
    wait_for(lambda: list(tmp_path.glob("*/last.safetensors")), process)
    os.kill(workers_of(process)[1], signal.SIGKILL)
    told, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "lost another one; the same command with --resume auto goes on" in told
    done = last_state(tmp_path)["epoch"]
    assert done >= 1

    process = torchrun(*command, "--resume", "auto")
    metrics = folder_of(tmp_path) / "metrics.jsonl"
    wait_for(lambda: metrics.read_bytes().count(b"\n") > done, process)
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=120)
    assert f"(resumed after epoch {done})" in told
    assert "SIGTERM: stopped in epoch" in told
    assert last_state(tmp_path)["epoch"] > done


def workers_of(process: subprocess.Popen) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
    return [pid for pid in map(int, found.split()) if b"main.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def wait_for(condition, process: subprocess.Popen) -> None:
    start = time.monotonic()
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < start + 200
        time.sleep(0.1)


def test_micro_batches_give_the_losses_of_the_batch_where_nothing_normalises_over_it(tmp_path, monkeypatch):
    """`vit` has no batch norm: gradient accumulation is then the same step but for rounding."""
    model = ["--model", "vit(embed_dim=16, depth=2, num_heads=2)", "--train-images", "1400"]
    curves = []
    for parts in ("1", "4"):
        with monkeypatch.context() as patch:
            curves.append(spied_losses(patch))
            assert run(tmp_path / parts, *model, "--epochs", "1", "--accum-steps", parts) == 0
    assert np.abs(np.subtract(*curves)).max() < 1e-4
    assert len(curves[0]) == 35


def test_numbers_of_a_share_are_those_of_the_batch():
    torch.manual_seed(0)
    whole = rand_per_image((3, 8, 2), axis=1, device=torch.device("cpu"))
    for positions in ([0, 7], [3, 4, 5, 6, 1, 2]):
        torch.manual_seed(0)
        with micro_batch(torch.tensor(positions), 8):
            share = rand_per_image((3, len(positions), 2), axis=1, device=torch.device("cpu"))
        assert torch.equal(share, whole[:, positions])


@pytest.mark.parametrize(("arguments", "line"), [
    (["--batch-size", "40", "--accum-steps", "3"], "batch_size=40 can't be shared evenly by 1 processes"),
    (["--accum-steps", "0"], "accum_steps takes an integer, 1 or more, not 0"),
    (["--accum-steps", "8"], "need an even batch_size, not 5 images in a micro-batch"),
])  # fmt: skip
def test_batches_that_cannot_be_shared(arguments, line, tmp_path, capsys):
    assert run(tmp_path / "runs", *arguments) == 2
    assert line in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
