"""The benchmark of engines: its processes take turns, one that fails is a line, and all compute the same weights."""

from __future__ import annotations

import importlib.util
import itertools
import json
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from benchmarks.engines import __main__ as command
from benchmarks.engines import prepare
from benchmarks.engines.contestants import CONTESTANTS, CannotTakeError, Ours, PlainTorch, SpikingJelly
from benchmarks.engines.measure import Contest
from benchmarks.engines.process import EngineError, EngineProcess
from benchmarks.engines.report import table
from benchmarks.engines.task import Task
from st_utils.node import base
from tests.benchmarks import fake_engines as fake

TINY = "spikformer(embed_dim=16, depth=1, num_heads=2, mlp_ratio=1.0, step=2, img_size=8)"
EXPORTS = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript"))


def task_of(file: Path, batch: int = 2, images: int = 5) -> Task:
    values = np.random.default_rng(0).random((images, 4), np.float32)
    return Task("fake", "fake", str(file), values, values[:, :3].astype(np.float64), batch, 1)


@pytest.mark.parametrize(
    ("batch", "images", "compared", "timed"), [(1, 5, 5, 4), (2, 5, 2, 2), (16, 40, 2, 1), (32, 33, 1, 1)]
)
def test_a_round_times_some_of_the_batches(batch, images, compared, timed):
    """At most 4 batches of at most 16 images together, and at least one."""
    task = task_of(Path(), batch, images)
    assert [len(part) for part in task.batches()] == [batch] * compared
    assert [len(part) for part in task.timed()] == [batch] * timed


def measured(file: Path, rounds: int = 3, **contestants) -> dict[str, dict]:
    with Contest(contestants, threads=1) as contest:
        return contest.measure(task_of(file), rounds)


def test_processes_take_turns_and_one_computes_at_a_time(tmp_path):
    rows = measured(tmp_path / "turns", ours=fake.Steady, other=fake.Other)
    lines = [line.split() for line in (tmp_path / "turns").read_text().splitlines()]
    for (name, what), (next_name, next_what) in itertools.pairwise(lines):
        assert what != "begins" or (next_name, next_what) == (name, "ends")
    calls = [name for name, what in lines if what == "begins"]
    check, rounds = 2, 4  # batches of the five images; the first round warms up
    round_of = [name for name in ("Steady", "Other") for _ in range(1 + check)]
    assert calls == ["Steady"] * check + ["Other"] * check + round_of * rounds
    for row in rows.values():
        assert len(row["all_seconds"]) == 3
        assert row["seconds"] == statistics.median(row["all_seconds"])
        assert row["min_seconds"] == min(row["all_seconds"]) >= 0.002
        assert (row["largest_difference"], row["same_class"], row["note"]) == (0, 1, "fake")
    assert rows["ours"]["over_ours"] == 1
    assert rows["other"]["over_ours"] == rows["other"]["seconds"] / rows["ours"]["seconds"]


def test_an_engine_that_fails_is_a_line_and_the_others_go_on(tmp_path):
    failing = {
        "killed": fake.Killed, "raises": fake.Raises, "absent": fake.Absent, "unwilling": fake.Unwilling,
        "unbounded": fake.Unbounded, "needs file": fake.NeedsFile,
    }  # fmt: skip
    rows = measured(tmp_path / "turns", ours=fake.Steady, **failing, last=fake.Other)
    assert {name: row["failed"] for name, row in rows.items() if "failed" in row} == {
        "killed": "its process was ended by SIGKILL",
        "raises": "RuntimeError: out of memory",
        "absent": "not installed: pip install no_such_engine",
        "unwilling": "has no such operator",
        "unbounded": "its logits are not finite",
        "needs file": "not exported",
    }
    assert list(rows) == ["ours", *failing, "last"]
    assert len(rows["ours"]["all_seconds"]) == len(rows["last"]["all_seconds"]) == 3
    assert all(row.keys() == {"failed"} for row in rows.values() if "failed" in row)
    shown = table(result_of(rows)).splitlines()
    assert len(shown) == 2 + len(rows)
    assert shown[3].split(maxsplit=1) == ["killed", "its process was ended by SIGKILL"]


def result_of(rows: dict[str, dict]) -> dict:
    origin = {"weights": "w", "images": "i"}
    return {
        "model": "m", "batch": 2, "origin": origin, "largest_logit": 1, "logit_spread": 1, "contestants": rows,
    }  # fmt: skip


def test_without_ours_there_is_no_ratio(tmp_path):
    rows = measured(tmp_path / "turns", ours=fake.Absent, other=fake.Other)
    assert "over_ours" not in rows["other"]
    assert " - " in table(result_of(rows)).splitlines()[3]


def test_a_killed_engine_has_a_new_process_for_the_next_task(tmp_path):
    with Contest({"ours": fake.KilledOnce, "other": fake.Other}, threads=1) as contest:
        first = contest.measure(task_of(tmp_path / "first"), 3)
        numbers = {name: process.pid for name, process in contest.processes.items()}
        second = contest.measure(task_of(tmp_path / "second"), 3)
        assert contest.processes["ours"].pid != numbers["ours"]
        assert contest.processes["other"].pid == numbers["other"]
    assert first["ours"].keys() == {"failed"}
    assert len(second["ours"]["all_seconds"]) == 3
    assert not any(process.alive for process in contest.processes.values())


def test_an_engine_that_does_not_answer_is_given_up(tmp_path):
    with EngineProcess(fake.Hangs) as process:
        with pytest.raises(EngineError, match="no answer within 5 seconds"):
            process.ask("load", task_of(tmp_path / "turns"), patience=5)
        assert not process.alive


def test_differences_are_of_the_weights_that_an_engine_has(tmp_path):
    rows = measured(tmp_path / "turns", wrong=fake.Wrong, own=fake.OwnWeights)
    assert rows["wrong"]["largest_difference"] == pytest.approx(0.25, abs=1e-6)
    logits = task_of(tmp_path).logits[:4]  # the fifth image is in no whole batch
    same = (logits.argmax(1) == (logits + [0, 0, 0.25]).argmax(1)).mean()
    assert rows["wrong"]["same_class"] == same < 1
    assert rows["own"]["largest_difference"] < 1e-6


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> dict:
    """Of the command, on a tiny model, with the zoo, plain torch and, where they are installed, the others."""
    out = tmp_path_factory.mktemp("engines") / "out.json"
    engines = ["ours", "torch", "onnxruntime", "openvino"]
    words = ["--model", TINY, "--batch", "2", "--rounds", "2", "--threads", "1", "--out", str(out)]
    assert command.main([*words, "--engine", *engines]) == 0
    assert out.with_suffix(".png").stat().st_size > 1000
    return json.loads(out.read_text())


def test_engines_compute_the_same_weights(result):
    (task,) = result["tasks"]
    rows = task["contestants"]
    assert task["logit_spread"] > 0
    assert task["compared_images"] == command.IMAGES
    for name in ("ours", "torch"):
        assert len(rows[name]["all_seconds"]) == 2
        assert rows[name]["largest_difference"] < 1e-5
        assert rows[name]["same_class"] == 1
    assert result["omp_wait_policy"] == "PASSIVE"
    assert result["instruction_set"] and result["versions"]["numpy"] == np.__version__


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_what_is_exported_computes_the_same_weights(result, name):
    row = result["tasks"][0]["contestants"][name]
    if not EXPORTS:
        assert row["failed"].startswith(("not installed", "not exported"))
    elif importlib.util.find_spec(name) is None:
        assert row["failed"] == f"not installed: pip install {name}"
    else:
        assert len(row["all_seconds"]) == 2
        assert row["largest_difference"] < 1e-5
        assert row["same_class"] == 1


@pytest.mark.parametrize("spec", [TINY, "csnn(channels=[4, 8])"])
def test_plain_torch_has_no_kernel_and_the_same_logits(spec, tmp_path, monkeypatch):
    def refuse(*given):
        raise RuntimeError("a kernel was called")

    subject = prepare.of_spec(spec, 4)
    images, task = subject.images.numpy(), subject.task(4, 1, tmp_path)
    ours, plain = Ours(), PlainTorch()
    for engine in (ours, plain):
        engine.load(task)
        assert np.abs(engine.infer(images) - subject.logits.numpy()).max() < 1e-5
    assert {type(module).__module__ for module in plain.model.modules() if isinstance(module, torch.nn.Conv2d)} == {
        "torch.nn.modules.conv"
    }
    monkeypatch.setattr(base, "integrate_and_fire", refuse)
    with pytest.raises(RuntimeError, match="a kernel was called"):
        ours.infer(images)
    plain.infer(images)


def test_spikingjelly_has_one_model(tmp_path):
    task = prepare.of_spec(TINY, 2).task(2, 1, tmp_path)
    with pytest.raises(CannotTakeError, match="for no other"):
        SpikingJelly().load(task)


def test_a_model_without_norms_is_made_to_fire():
    torch.manual_seed(0)
    model, images = zoo.create_model("csnn(channels=[4, 8])"), torch.rand(4, 1, 28, 28)
    with torch.no_grad():
        assert model(images).std(0).max() == 0
        prepare.liven(model, images)
        assert model(images).std(0).max() > 0
        conv = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
        assert conv(images).std().item() == pytest.approx(1, rel=1e-3)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_silent_model_is_not_measured(capsys, monkeypatch):
    monkeypatch.setattr(prepare, "liven", lambda model, images: model)
    assert command.main(["--model", "csnn(channels=[4, 8])", "--engine", "ours"]) == 2
    assert "is silent" in capsys.readouterr().err


def test_a_run_gives_its_weights_and_test_images(tmp_path, capsys):
    torch.set_num_threads(1)
    done = zoo.run(
        model="spikformer(embed_dim=16, depth=1, num_heads=2, mlp_ratio=1.0)", step=2, img_size=8, recipe="none",
        epochs=3, lr=0.01, train_images=200, test_images=20, batch_size=4, device="cpu", output=str(tmp_path),
    )  # fmt: skip
    subject = prepare.of_run(str(done.folder), 12)
    assert subject.name == done.folder.name
    assert subject.images.shape == (12, 1, 8, 8)
    with torch.no_grad():
        expected = done.model.double().eval()(subject.images.double())
    assert torch.equal(subject.logits, expected)
    assert command.main(["--weights", str(done.folder), "--batch", "1000", "--engine", "ours"]) == 2
    assert "20 test images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--engine", "onnxrun"], "unknown engine 'onnxrun'; did you mean 'onnxruntime'?"),
        (["--batch", "16", "0"], "--batch is 0: choose at least 1"),
        (["--rounds", "0"], "--rounds is 0: choose at least 1"),
        (["--threads", "-1"], "--threads is -1: choose at least 1"),
        (["--model", "spikfromer"], "did you mean 'spikformer'"),
        (["--weights", "nowhere"], "nowhere is not a run's folder"),
    ],
)
def test_mistakes_are_one_line(words, line, capsys):
    assert command.main([*words, *([] if "--engine" in words else ["--engine", "ours"])]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and line in shown


def test_an_export_that_fails_says_why(tmp_path, monkeypatch):
    def refuse(*given, **settings):
        raise NotImplementedError("no such\noperator")

    if EXPORTS:
        monkeypatch.setattr(torch.onnx, "export", refuse)
        found = prepare.exported(torch.nn.Identity(), torch.rand(1, 2), tmp_path)
        assert found == (None, "the export failed: NotImplementedError: no such operator")
    monkeypatch.setattr(prepare, "EXPORTERS", ("no_such_exporter",))
    found = prepare.exported(torch.nn.Identity(), torch.rand(1, 2), tmp_path)
    assert found == (None, "not exported: pip install no_such_exporter")


def test_the_usage_names_every_contestant():
    assert all(f"\n    {name}  " in command.__doc__ for name in CONTESTANTS)
