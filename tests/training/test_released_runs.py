"""Runs that earlier versions made, kept in tests/released: they still mean what they meant."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import main
from st_utils.training import checkpoint
from st_utils.training.tensor_file import read_metadata

RELEASED = sorted(path.parent for path in (Path(__file__).parents[1] / "released").glob("*/args.yml"))
COMMAND = [
    "--model", "spikformer(embed_dim=8, depth=1, num_heads=2, mlp_ratio=1.0)", "--attention", "statten", "--step", "2",
    "--img-size", "8", "--epochs", "25", "--batch-size", "32", "--lr", "0.01", "--device", "cpu",
]  # fmt: skip


def test_there_are_some():
    assert RELEASED


@pytest.mark.parametrize("run", RELEASED, ids=lambda path: path.name)
def test_it_evaluates_to_its_recorded_accuracy(run, tmp_path, capsys):
    folder = shutil.copytree(run, tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    shutil.copy(folder / "last.safetensors", tmp_path / "alone.safetensors")
    for what, top1 in (("run", "top1"), ("run/best.safetensors", "best_top1"), ("alone.safetensors", "top1")):
        assert main.main(["--eval", "--device", "cpu", "--resume", str(tmp_path / what)]) == 0
        assert f"top-1 {summary[top1]:.2f} %" in capsys.readouterr().out, what
    assert checkpoint.read_record(folder / "last.safetensors")["full_spec"] == summary["full_spec"]


@pytest.mark.parametrize("run", RELEASED, ids=lambda path: path.name)
def test_the_command_that_made_it_finds_it(run, tmp_path, caplog):
    caplog.set_level("INFO", logger="zoo")
    shutil.copytree(run, tmp_path / "run")
    assert main.main([*COMMAND, "--output", str(tmp_path), "--resume", "auto"]) == 0
    assert "already finished: top-1 74.93 %" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    if run.name == "033ad3e":
        assert "does not record its data, an earlier version made it" in caplog.text


@pytest.mark.parametrize("run", RELEASED, ids=lambda path: path.name)
def test_it_is_trained_further(run, tmp_path, caplog, capsys):
    """As if it had been begun for two more epochs; then this version's files alone are in its folder."""
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "summary.json").unlink()
    args = (folder / "args.yml").read_text()
    assert args.count("epochs: 25\n") == 2  # of the arguments and of the identity
    (folder / "args.yml").write_text(args.replace("epochs: 25\n", "epochs: 27\n"))
    caplog.set_level("INFO", logger="zoo")
    assert main.main([*COMMAND, "--epochs", "27", "--output", str(tmp_path), "--resume", "auto"]) == 0
    assert "(resumed after epoch 25)" in caplog.text
    old, rows = (list(map(json.loads, (at / "metrics.jsonl").read_text().splitlines())) for at in (run, folder))
    assert rows[:25] == old
    assert [row["epoch"] for row in rows[25:]] == [26, 27]
    formats = {read_metadata(path)["format"] for path in folder.glob("*.safetensors")}
    assert formats == {checkpoint.WEIGHTS, checkpoint.STATE}
    for name, row in (("last", rows[-1]), ("best", max(rows, key=lambda row: row["top1"]))):
        assert main.main(["--eval", "--device", "cpu", "--resume", str(folder / f"{name}.safetensors")]) == 0
        assert f"top-1 {row['top1']:.2f} %" in capsys.readouterr().out, name
