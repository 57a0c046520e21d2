"""Checkpoints of version 0.1.0: read as ever, and rewritten when their run goes on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from st_utils.training import checkpoint, old_checkpoint
from st_utils.training.checkpoint import CheckpointError, load, renew, rotating_paths, save_rotating
from tests.training.checkpoints import content, parts, refused, same
from tests.training.old_format import write_old

RELEASED = Path(__file__).parents[1] / "released" / "033ad3e"


def whole(epoch: int) -> dict:
    """A state with everything that the old version kept."""
    kernel = torch.full((2, 3, 4, 4), float(epoch)).to(memory_format=torch.channels_last)
    weights = {"conv.weight": kernel, "norm.num_batches_tracked": torch.tensor(epoch)}
    state = {"record": {"spec": "sdt"}, "epoch": epoch, "losses": [], "top1": 1.0, "model": weights, "ema": None}
    return {**state, "optimizer": {"state": {0: {"exp_avg": kernel / 2}}, "param_groups": [{"betas": (0.9, 0.99)}]}}


def formats(folder: Path) -> set[str]:
    return {parts(path)[1]["format"] for path in folder.glob("*.safetensors")}


def test_the_writer_is_true_to_a_released_file(tmp_path):
    for name in ("last", "best"):
        made = RELEASED / f"{name}.safetensors"
        write_old(tmp_path / "again.safetensors", load(made))
        (tensors, metadata), (again, told) = parts(made), parts(tmp_path / "again.safetensors")
        assert metadata == told
        assert same(tensors, again)
        assert set(metadata) == {"format", "state", "sha256"}
        assert metadata["format"] == old_checkpoint.FORMAT


def test_damage_is_noticed(tmp_path):
    path = tmp_path / "c.safetensors"
    write_old(path, whole(1))
    good = path.read_bytes()
    assert same(load(path), whole(1))
    for offset in range(0, len(good), 7):
        path.unlink()
        path.write_bytes(good[:offset] + bytes([good[offset] ^ 4]) + good[offset + 1 :])
        with refused(CheckpointError, path):
            load(path)


def test_the_first_save_keeps_it_as_the_one_before(tmp_path):
    last, prev = rotating_paths(tmp_path, "last")
    write_old(last, whole(1))
    save_rotating(tmp_path, "last", whole(2))
    assert same([load(last), load(prev)], [whole(2), whole(1)])
    save_rotating(tmp_path, "last", whole(3))
    assert same([load(last), load(prev)], [whole(3), whole(2)])
    assert formats(tmp_path) == {checkpoint.WEIGHTS, checkpoint.STATE}


def test_all_of_a_run_are_renewed(tmp_path):
    last, prev = rotating_paths(tmp_path, "last")
    best = tmp_path / "best.safetensors"
    for path, epoch in ((last, 3), (prev, 2), (best, 1)):
        write_old(path, whole(epoch))
    renew(tmp_path)
    assert same([load(last), load(prev)], [whole(3), whole(2)])
    assert safetensors.torch.load_file(best).keys() == whole(1)["model"].keys()
    assert same(load(best), {key: whole(1)[key] for key in ("record", "epoch", "top1", "model")})
    assert formats(tmp_path) == {checkpoint.WEIGHTS, checkpoint.STATE}
    before = content(tmp_path)
    renew(tmp_path)
    assert content(tmp_path) == before


def test_a_damaged_one_stays_and_is_told(tmp_path, caplog):
    last, prev = rotating_paths(tmp_path, "last")
    write_old(last, whole(3))
    write_old(prev, whole(2))
    last.write_bytes(last.read_bytes()[:-1] + b"\1")
    renew(tmp_path)
    assert str(last) in caplog.text
    assert same(checkpoint.load_newest(tmp_path, "last")[0], whole(2))


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_stop_while_they_are_renewed(call, tmp_path, monkeypatch):
    """Whatever of them is new, last and the one before load as they were."""
    original, last, prev = getattr(os, call), *rotating_paths(tmp_path, "last")
    stops = 0
    for moment in range(100):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        write_old(last, whole(3))
        write_old(prev, whole(2))
        count = [0]

        def stopping(*arguments, count=count, moment=moment):
            count[0] += 1
            if count[0] > moment:
                raise KeyboardInterrupt
            return original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, stopping)
            try:
                renew(tmp_path)
            except KeyboardInterrupt:
                stops += 1
        assert same([load(last), load(prev)], [whole(3), whole(2)])
        if count[0] <= moment:
            break
    assert stops >= 4
