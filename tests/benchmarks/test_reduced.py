"""benchmarks/reduced.py: accuracies are counted on the run's own test images, and spikes that flip in all neurons."""

from __future__ import annotations

import json

import pytest
import torch

import zoo
from benchmarks import reduced

RUN = {
    "model": "csnn(step=2)", "dataset": "digits", "img_size": 28, "epochs": 1, "train_images": 400, "test_images": 40,
    "batch_size": 20, "lr": 0.01, "device": "cpu", "recipe": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> zoo.Result:
    return zoo.run(output=tmp_path_factory.mktemp("runs"), **RUN)


def test_accuracy_and_agreement(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reduced, "ENGINES", ("ours", "ours compiled", "ours int16"))
    words = [
        str(trained.folder),
        "--images",
        "40",
        "--batch",
        "20",
        "--threads",
        "1",
        "--out",
        str(tmp_path / "r.json"),
    ]
    assert reduced.main(words) == 0
    (result,) = json.loads((tmp_path / "r.json").read_text())["results"]
    rows = result["engines"]
    assert rows["float64, plain torch"]["accuracy"] == pytest.approx(trained.summary["top1"], abs=2)
    assert rows["ours"]["accuracy"] == pytest.approx(trained.summary["top1"], abs=1e-9)
    assert rows["ours compiled"]["same_class"] == rows["ours"]["same_class"] >= 95
    assert rows["ours int16"]["precision"] == "int16, compiled" and rows["ours int16"]["same_class"] > 80
    told = capsys.readouterr().out
    assert f"{rows['ours']['accuracy']:.2f}%" in told and "spikes that flip, int16" in told


def test_weights_that_are_not_rounded_flip_nothing(trained):
    model = trained.model.eval()
    images = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for weight in model.parameters():
        weight.data = weight.data.bfloat16().float()
    assert reduced.flips(model, images)["bfloat16 weights"] == 0
    for weight in model.parameters():
        weight.data *= 1 + 2**-10
    found = reduced.flips(model, images)
    assert 0 < found["bfloat16 weights"] < 20 and found["int16"] < found["bfloat16 weights"]


def test_what_is_no_run_is_one_line(tmp_path, capsys):
    assert reduced.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
