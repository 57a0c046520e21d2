"""Learning rates by epoch of sched=multistep: by hand, against torch's MultiStepLR, over a stop; what it refuses."""

from __future__ import annotations

import json
import os
import signal

import pytest
import torch
from torch.optim.lr_scheduler import MultiStepLR

from st_utils.errors import UserError
from st_utils.training.optim import build_optimizer, build_schedule
from st_utils.training.settings import Settings
from tests.training.quick import folder_of, last_state, run, same
from tests.training.test_faults import at_step


def rates(settings: Settings) -> list[float]:
    """The learning rate in each epoch, as the trainer asks for it: before the epoch's first step."""
    optimizer = build_optimizer(torch.nn.Linear(2, 2), settings)
    schedule, found = build_schedule(optimizer, settings), []
    for epoch in range(settings.epochs):
        schedule.step(epoch)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_the_rate_falls_after_the_milestones():
    settings = Settings(sched="multistep", milestones=(10, 15), epochs=20, lr=1e-2)
    assert rates(settings) == pytest.approx(10 * [1e-2] + 5 * [1e-3] + 5 * [1e-4], rel=1e-12)


@pytest.mark.parametrize(
    ("milestones", "rate", "epochs"), [((10, 15), 0.1, 20), ((1,), 0.5, 4), ((3, 4, 5), 0.2, 7), ((2, 9), 0.1, 9)]
)
def test_the_rates_are_torchs(milestones, rate, epochs):
    settings = Settings(sched="multistep", milestones=milestones, decay_rate=rate, epochs=epochs, lr=0.3)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    schedule, expected = MultiStepLR(optimizer, list(milestones), gamma=rate), []
    for _ in range(epochs):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates(settings) == pytest.approx(expected, rel=1e-12)


def test_the_warm_up_counts_among_the_epochs():
    settings = Settings(
        sched="multistep", milestones=(4, 6), warmup_epochs=2, warmup_lr=0.2, cooldown_epochs=1, epochs=8, lr=1.0
    )
    assert rates(settings) == pytest.approx([0.2, 0.6, 1.0, 1.0, 0.1, 0.1, 0.01, 0.01], rel=1e-12)


def test_multistep_needs_milestones():
    settings = Settings(sched="multistep", epochs=20)
    with pytest.raises(UserError, match=r"^sched=multistep needs milestones, such as --milestones '\[10, 15\]'$"):
        rates(settings)


def test_what_no_epoch_uses_is_said(caplog):
    flat = rates(Settings(sched="multistep", milestones=(2, 5, 9), epochs=5, lr=1.0))
    assert flat == pytest.approx([1, 1, 0.1, 0.1, 0.1])
    assert caplog.messages == ["milestones=[2, 5, 9]: a run of 5 epochs never trains after [5, 9]"]
    caplog.clear()
    assert rates(Settings(milestones=(2,), epochs=5)) == rates(Settings(epochs=5))
    assert caplog.messages == ["milestones=[2] is ignored: sched=cosine, not multistep"]


def test_a_stopped_run_keeps_its_milestones(tmp_path, monkeypatch):
    """Stopped in the second of three epochs, each with five steps: the same rates and weights to the bit."""
    words = ["--sched", "multistep", "--milestones", "[1, 2]", "--lr", "0.01", "--recipe", "none", "--epochs", "3"]
    assert run(tmp_path / "whole", *words) == 0
    with monkeypatch.context() as patch:
        at_step(patch, 7, lambda _: os.kill(os.getpid(), signal.SIGTERM))
        assert run(tmp_path / "stopped", *words) == 143
    assert run(tmp_path / "stopped", *words) == 0
    for name in ("whole", "stopped"):
        rows = map(json.loads, (folder_of(tmp_path / name) / "metrics.jsonl").read_text().splitlines())
        assert [row["lr"] for row in rows] == pytest.approx([1e-2, 1e-3, 1e-4])
    whole, stopped = last_state(tmp_path / "whole"), last_state(tmp_path / "stopped")
    for part in ("model", "optimizer", "schedule"):
        assert same(whole[part], stopped[part]), part
