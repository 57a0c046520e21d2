"""A run's training accuracy: counted anew from its logits, and the same however the run is interrupted."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score

from st_utils.training import checkpoint, launch
from st_utils.training.trainer import Trainer
from tests.training.quick import folder_of, last_state, run
from tests.training.test_faults import at_step

PLAIN = ["--mixup", "0", "--epochs", "1", "--lr", "1e-2"]


def rows(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder_of(output) / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("name", "further"), [("one", []), ("parts", ["--accum-steps", "4"]), ("tet", ["--tet"])])
def test_it_is_the_accuracy_of_the_logits_that_training_saw(tmp_path, monkeypatch, name, further):
    logits, labels = [], []
    step, prepared = Trainer.step, launch.prepared

    def spied(self, inputs, given, *arguments, **options):
        labels.append(given.numpy())
        return step(self, inputs, given, *arguments, **options)

    def hooked(*arguments):
        model = prepared(*arguments)
        model.register_forward_hook(lambda m, _, out: logits.append(out.detach().numpy()) if m.training else None)
        return model

    monkeypatch.setattr(Trainer, "step", spied)
    monkeypatch.setattr(launch, "prepared", hooked)
    assert run(tmp_path, *PLAIN, *further) == 0
    seen = [each.mean(0) if each.ndim == 3 else each for each in logits]
    expected = 100 * accuracy_score(np.concatenate(labels), np.concatenate(seen).argmax(1))
    assert sum(map(len, labels)) == 200
    assert rows(tmp_path)[-1]["train_top1"] == pytest.approx(expected, abs=1e-9)
    summary = json.loads((folder_of(tmp_path) / "summary.json").read_text())
    assert summary["train_top1"] == rows(tmp_path)[-1]["train_top1"]


def test_the_summary_knows_what_guessing_gives(tmp_path):
    """53 of the digits' test images, the first of each class in turn: six of classes 0, 1, 2, five of the others."""
    assert run(tmp_path, *PLAIN) == 0
    summary = json.loads((folder_of(tmp_path) / "summary.json").read_text())
    assert summary["test_images"] == 53
    assert summary["chance"] == pytest.approx(100 * 6 / 53)


def test_a_resumed_epoch_has_the_same_training_accuracy(tmp_path, monkeypatch):
    """With mixup; five steps an epoch, stopped in the first epoch and again in the second."""
    assert run(tmp_path / "whole") == 0
    for stop in (3, 4):
        with monkeypatch.context() as patch:
            at_step(patch, stop, lambda _: os.kill(os.getpid(), signal.SIGTERM))
            assert run(tmp_path / "stopped") == 143
    assert len(last_state(tmp_path / "stopped")["correct"]) == 2
    assert run(tmp_path / "stopped") == 0
    whole, stopped = ([row["train_top1"] for row in rows(tmp_path / name)] for name in ("whole", "stopped"))
    assert whole == stopped
    assert len(set(whole)) == 2, "two equal epochs would prove nothing"


def test_an_epoch_that_an_old_checkpoint_began_has_none(tmp_path, monkeypatch):
    """Its first steps were not counted: half a count would be a wrong figure."""
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        assert run(tmp_path) == 143
    old = last_state(tmp_path)
    del old["correct"]
    checkpoint.save_rotating(folder_of(tmp_path), "last", old)
    assert run(tmp_path) == 0
    first, second = (row["train_top1"] for row in rows(tmp_path))
    assert first is None
    assert 0 <= second <= 100


def test_counting_draws_nothing_and_changes_no_weight(tmp_path, monkeypatch):
    from st_utils.training import step

    assert run(tmp_path / "counted", "--epochs", "1") == 0
    monkeypatch.setattr(step, "correct", lambda logits, labels: torch.tensor(0))
    assert run(tmp_path / "not", "--epochs", "1") == 0
    counted, uncounted = (last_state(tmp_path / name)["model"] for name in ("counted", "not"))
    assert all(torch.equal(value, uncounted[key]) for key, value in counted.items())
