"""The command line on event data and sequences: it trains, mixes, draws, and says what does not fit."""

import json
from pathlib import Path

import pytest

import main

from .writers import some_events, write

QUICK = [
    "--model", "spikformer(embed_dim=16, depth=1, num_heads=2, mlp_ratio=1.0)", "--recipe", "none", "--epochs", "1",
    "--batch-size", "4", "--device", "cpu",
]  # fmt: skip


@pytest.fixture
def nmnist(tmp_path) -> Path:
    for split, count in (("Train", 6), ("Test", 2)):
        for digit in (0, 1):
            for i in range(count):
                write(tmp_path / split / str(digit) / f"{i:05d}.bin", **some_events(100, seed=10 * digit + i))
    return tmp_path


def run(folder: Path, *arguments: str) -> int:
    return main.main([*QUICK, "--data-dir", str(folder), "--output", str(folder / "runs"), *arguments])


MIXES = {
    "plain": [],
    "augmented": ["--event-augment", "nda"],
    "cutmix": ["--cutmix", "1.0"],
    "event mix": ["--event-mix", "1.0", "--smoothing", "0.1"],
    "all": ["--mixup", "0.5", "--cutmix", "0.5", "--event-mix", "1.0", "--event-augment", "hflip+snn_augment_wide"],
}


@pytest.mark.parametrize("mix", MIXES)
def test_event_frames_train_and_are_drawn(nmnist, mix):
    assert run(nmnist, "--dataset", "nmnist", "--event-size", "17", "--step", "3", *MIXES[mix]) == 0
    (folder,) = (nmnist / "runs").iterdir()
    assert json.loads((folder / "summary.json").read_text())["dataset"] == "nmnist"
    assert (folder / "run.png").stat().st_size > 1000
    (cache,) = (nmnist / ".event_cache").glob("nmnist-train-*")
    assert cache.name.startswith("nmnist-train-T3-17-count-")


def test_a_run_of_event_data_is_the_same_with_and_without_workers_and_cache(nmnist, monkeypatch):
    monkeypatch.setattr("st_utils.data.loader.KEEP_BYTES", 0)
    losses = []
    for number, extra in enumerate((["--workers", "0"], ["--workers", "2"], ["--cache-dir", "none"])):
        output = ["--output", str(nmnist / f"runs{number}"), "--event-augment", "braincog"]
        assert run(nmnist, "--dataset", "nmnist", *output, *extra) == 0
        (metrics,) = (nmnist / f"runs{number}").glob("*/metrics.jsonl")
        row = json.loads(metrics.read_text())
        losses.append((row["train_loss"], row["test_loss"]))
    assert losses[0] == losses[1] == losses[2]


def test_what_does_not_fit_is_one_line(nmnist, capsys, caplog):
    assert run(nmnist, "--dataset", "nmnist(step=5)") == 2
    assert "has 5 frames and the model step=4: make them equal by --step" in capsys.readouterr().err
    assert run(nmnist, "--dataset", "nmnist", "--event-augment", "mirror") == 2
    assert "event_augment has 'mirror'" in capsys.readouterr().err
    (nmnist / "Train" / "0" / "00001.bin").write_bytes(b"123")
    assert run(nmnist, "--dataset", "nmnist") == 2
    assert "00001.bin is cut off" in capsys.readouterr().err
    images = ["--train-images", "40", "--test-images", "20", "--img-size", "8"]
    assert run(nmnist, "--dataset", "digits", "--event-size", "128", *images) == 0
    assert "event_size=128 is ignored: digits is no event data set" in caplog.text
