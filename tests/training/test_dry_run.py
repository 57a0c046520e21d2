"""--dry-run: what is told is what was measured, and nothing is left behind."""

from __future__ import annotations

import re

import pytest

from st_utils.training import dry_run
from tests.training.quick import run


def test_a_dry_run_tells_and_leaves_nothing(tmp_path, caplog):
    caplog.set_level("INFO", logger="zoo")
    assert run(tmp_path / "runs", "--epochs", "100", "--dry-run", "6", "--power", "300") == 0
    told = caplog.text
    assert not (tmp_path / "runs").exists()
    assert "lr 0.003 as it is, not scaled by the batch" in told
    assert "40 images in a step" in told
    speed, step = map(float, re.search(r"speed +([\d.]+) images/s in training, ([\d.]+) ms a step", told).groups())
    assert speed == pytest.approx(40 / (step / 1000), rel=0.01)
    hours, training = map(float, re.search(r"time +(\S+) hours for 100 epochs: (\S+) to train", told).groups())
    assert training == pytest.approx(100 * 5 * step / 1000 / 3600, rel=0.01)
    assert float(re.search(r"energy +(\S+) kWh at 300 W", told)[1]) == pytest.approx(hours * 0.3, rel=0.02)
    assert float(re.search(r"memory +([\d,]+) MiB", told)[1].replace(",", "")) > 100


def test_the_clock_and_the_steps(tmp_path, caplog, monkeypatch):
    """With a clock that advances a second at each look, 10 steps take one second, and a tenth is one step's."""
    caplog.set_level("INFO", logger="zoo")
    ticks = iter(range(100))
    monkeypatch.setattr(dry_run, "_now", lambda _device: float(next(ticks)))
    assert run(tmp_path / "runs", "--epochs", "36", "--dry-run", "10") == 0
    assert "speed    400.0 images/s in training, 100.0 ms a step" in caplog.text
    assert "time     0.015 hours for 36 epochs: 0.005 to train, 0.01 to test" in caplog.text  # 2 batches in a second


@pytest.mark.parametrize(("wrong", "line"), [
    (["--dry-run", "0"], "dry_run takes an integer, 1 or more, or none, not 0"),
    (["--dry-run", "1", "--power", "-3"], "power takes a number, above 0, or none, not -3"),
])  # fmt: skip
def test_wrong_values(tmp_path, capsys, wrong, line):
    assert run(tmp_path, *wrong) == 2
    assert line in capsys.readouterr().err
