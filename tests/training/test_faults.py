"""What goes wrong in a long run, for real: signals, killed processes, full and read-only disks, overflows.

Each is one line and a distinct status, and leaves a sound checkpoint to go on from.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from st_utils.training import checkpoint, old_checkpoint, tensor_file
from st_utils.training.trainer import Trainer
from tests.training.old_format import make_old
from tests.training.quick import QUICK, ROOT, folder_of, last_state, run, same


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The last state of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("whole")
    assert run(output) == 0
    return last_state(output)


def at_step(monkeypatch, wanted: int, act) -> None:
    """Call `act` in the run's step number `wanted`, counted over the epochs."""
    step, calls = Trainer.step, []

    def spied(self, *arguments, **options):
        calls.append(1)
        if len(calls) == wanted:
            act(self)
        return step(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "step", spied)


def one_line(capsys) -> str:
    told = capsys.readouterr().err
    lines = [line for line in told.splitlines() if line and "images/s" not in line and not line.startswith("\r")]
    assert "Traceback" not in told
    return lines[-1]


@pytest.mark.parametrize(("number", "status", "step"), [(signal.SIGTERM, 143, 3), (signal.SIGINT, 130, 7)])
def test_a_signal_leaves_a_checkpoint_and_its_own_status(whole, tmp_path, monkeypatch, capsys, number, status, step):
    """Five steps an epoch: the third is in the first, the seventh in the second."""
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda _: os.kill(os.getpid(), number))
        assert run(tmp_path) == status
    place = f"{number.name}: stopped in epoch {step // 5 + 1} after step {step % 5}"
    assert place in one_line(capsys)
    state = last_state(tmp_path)
    assert (state["epoch"], len(state["losses"])) == (step // 5, step % 5)
    assert run(tmp_path) == 0
    resumed = last_state(tmp_path)
    for part in ("model", "optimizer", "top1", "best", "losses"):
        assert same(resumed[part], whole[part]), part


@pytest.mark.parametrize(("more", "step"), [([], 7), (["--ema", "0.9"], 3), (["--amp", "fp16"], 7)], ids=str)
def test_a_run_that_version_0_1_0_began_goes_on(more, step, tmp_path, monkeypatch):
    """Its checkpoints are of the old format. It ends as a run by this version alone does, and none of them is left."""
    assert run(tmp_path / "whole", *more) == 0
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        assert run(tmp_path / "begun", *more) == 143
    folder = folder_of(tmp_path / "begun")
    make_old(folder)
    assert formats(folder) == {old_checkpoint.FORMAT}
    assert run(tmp_path / "begun", *more) == 0
    assert formats(folder) == {checkpoint.WEIGHTS, checkpoint.STATE}
    whole, resumed = last_state(tmp_path / "whole"), last_state(tmp_path / "begun")
    for part in ("model", "ema", "optimizer", "schedule", "scaler", "top1", "best", "losses"):
        assert same(resumed[part], whole[part]), part


def formats(folder) -> set[str]:
    return {tensor_file.read_metadata(path)["format"] for path in folder.glob("*.safetensors")}


def test_a_signal_while_testing(whole, tmp_path, monkeypatch, capsys):
    """The steps of the epoch are done and kept; only the test runs again."""
    with monkeypatch.context() as patch:
        test = Trainer.test
        patch.setattr(Trainer, "test", lambda self: (os.kill(os.getpid(), signal.SIGTERM), test(self))[1])
        assert run(tmp_path) == 143
    assert "stopped in epoch 1 after step 5" in one_line(capsys)
    assert run(tmp_path) == 0
    assert same(last_state(tmp_path)["model"], whole["model"])


def test_a_signal_to_the_whole_group_with_loader_processes(tmp_path):
    """As a batch system sends it: the loader's processes get it, too, and die of it."""
    command = [sys.executable, "main.py", *QUICK, "--epochs", "500", "--workers", "2", "--auto-augment", "rand-m9-n1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "--output", str(tmp_path)], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True,
        stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: list(tmp_path.glob("*/last.safetensors")), process)
    os.killpg(process.pid, signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "SIGTERM: stopped in epoch" in told
    assert "Traceback" not in told
    checkpoint.load(folder_of(tmp_path) / "last.safetensors")


def wait_for(condition, process) -> None:
    start = time.monotonic()
    while not condition():
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() < start + 120
        time.sleep(0.05)


def test_a_killed_loader_process(tmp_path, monkeypatch, capsys):
    def kill_one(_trainer) -> None:
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    with monkeypatch.context() as patch:
        at_step(patch, 6, kill_one)
        assert run(tmp_path, "--workers", "2", "--epochs", "3", "--auto-augment", "rand-m9-n1") == 2
    line = one_line(capsys)
    assert line.startswith("error: a data-loading process died (killed, or out of memory: try fewer --workers)")
    assert last_state(tmp_path)["epoch"] == 1
    assert run(tmp_path, "--workers", "2", "--epochs", "3", "--auto-augment", "rand-m9-n1") == 0


def mounted(folder, options: str):
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    return folder


@pytest.fixture
def small_disk(tmp_path):
    folder = mounted(tmp_path / "disk", "size=640k")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk(small_disk, monkeypatch, capsys):
    """The disk fills up in the second epoch; the first one's checkpoint stays, and with room the run goes on."""

    def fill(_trainer) -> None:
        with open(small_disk / "filler", "wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
            while True:
                filler.write(b"0" * 1024)

    with monkeypatch.context() as patch:
        at_step(patch, 6, fill)
        assert run(small_disk) == 2
    line = one_line(capsys)
    assert line.startswith("error: cannot write ")
    assert "No space left on device" in line
    folder = folder_of(small_disk)
    assert last_state(small_disk)["epoch"] == 1
    assert not list(folder.glob(".*.tmp"))
    (small_disk / "filler").unlink()
    assert run(small_disk) == 0


def test_a_disk_that_is_too_small_from_the_start(tmp_path, capsys):
    folder = mounted(tmp_path / "disk", "size=16k")
    try:
        assert run(folder) == 2
        assert "No space left on device" in one_line(capsys)
        assert not list(folder.glob("**/*.safetensors"))
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_an_output_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(tmp_path / "file" / "runs") == 2
    assert f"{tmp_path / 'file' / 'runs'}" in one_line(capsys)
    folder = mounted(tmp_path / "disk", "ro")
    try:
        assert run(folder / "runs") == 2
        assert "Read-only file system" in one_line(capsys)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_loss_that_is_not_finite_names_its_layer(tmp_path, monkeypatch, capsys):
    """In the second epoch's second step a weight is inf, as after a step of too high a rate."""

    def overflow(trainer) -> None:
        with torch.no_grad():
            trainer.model.head.weight[0, 0] = torch.inf
            trainer.model.head.bias[0] = torch.nan

    with monkeypatch.context() as patch:
        at_step(patch, 7, overflow)
        assert run(tmp_path) == 2
    line = one_line(capsys)
    assert "in epoch 2, step 2: head.weight is inf or nan" in line
    assert last_state(tmp_path)["epoch"] == 1
    assert run(tmp_path) == 0


def test_a_layer_that_overflows_is_named(tmp_path, monkeypatch, capsys):
    """Finite weights, but activations beyond float32."""

    def overflow(trainer) -> None:
        with torch.no_grad():
            trainer.model.head.weight.fill_(3e38)

    with monkeypatch.context() as patch:
        at_step(patch, 2, overflow)
        assert run(tmp_path, "--node", "ilif") == 2
    assert "in epoch 1, step 2: head gives inf or nan" in one_line(capsys)
