"""Transfer learning as a command: losses, slide, resuming, several processes, any model, and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import signal

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import main
import zoo
from registry import create
from st_utils.batch_share import micro_batch
from st_utils.data import DomainPair, SourceImages, data_identity
from st_utils.errors import UserError
from st_utils.training.settings import Settings
from st_utils.training.transfer_step import Transfer
from tests.training.quick import folder_of, last_state, same
from tests.training.test_distributed import DTYPES, spied_losses, torchrun
from tests.training.test_faults import at_step, one_line
from tests.training.test_transfer import CASES, SCHEDULES, normal, read

VGG = "transfer_vgg(width=4)"
SPIKFORMER = "spikformer(embed_dim=16, depth=1, num_heads=2, mlp_ratio=1.0, drop_path=0.2)"
COMMAND = [
    "--dataset", "digits_dvs", "--source", "digits", "--step", "2", "--event-size", "16", "--recipe", "none",
    "--epochs", "2", "--batch-size", "20", "--target-ratio", "0.07", "--test-images", "40", "--device", "cpu",
    "--tet", "--tet-means", "0.5", "--regularize", "--sliding-power", "1",
]  # fmt: skip


def transferred(output, *words: str, model: str = VGG) -> int:
    return main.main(["--model", model, *COMMAND, "--output", str(output), "--resume", "auto", *words])


# -- the loss ------------------------------------------------------------------------------------------------
LEARNED = [case for case in CASES if read(case[0])["cases"][case[1]]["settings"]["tsregular"] <= 0]


@pytest.mark.parametrize(("stem", "index"), LEARNED)
def test_the_commands_loss_is_the_authors(stem, index):
    """A network that gives the logits and features of the golden draw, under the settings of the command line."""
    numbers = read(stem)
    shape, case = numbers["inputs"], numbers["cases"][index]
    told, steps, batch = case["settings"], shape["T"], shape["B"]
    drawn = {name: normal(name, steps, batch, *shape["feature_shape"]) for name in ("feature_rgb", "feature_dvs")}
    drawn |= {name: normal(name, steps, batch, shape["classes"]) for name in ("output_rgb", "output_dvs")}
    dropped = told["no_sliding_training"] or not told["domain_loss"]
    settings = Settings(
        tet=told["TET_loss"],
        tet_means=told["threshold"],
        regularize=told["regularization"],
        domain_weight=0.0 if dropped else told["domain_loss_coefficient"],
        sliding=not told["no_sliding_training"],
    )
    logits = torch.stack([drawn["output_rgb"], drawn["output_dvs"]])
    features = torch.stack([drawn["feature_rgb"], drawn["feature_dvs"]])
    coefficient = nn.ParameterList(c.reshape(1) for c in normal("coefficient", steps).detach())
    pair = DomainPair(torch.zeros(batch, 1, 2, 2), torch.zeros(batch, steps, 2, 2, 2))
    seen = Transfer(settings, batches=3)(
        lambda *both: (logits, features),
        pair,
        torch.tensor(shape["label"]),
        coefficient,
        probability=0.5,
        autocast=contextlib.nullcontext,
    )
    for ours, theirs in {"total": "loss", "source": "loss_rgb", "target": "loss_dvs", "domain": "domain_loss"}.items():
        assert getattr(seen.terms, ours).item() == pytest.approx(case[theirs], abs=1e-12), theirs
    right = logits[1].mean(0).argmax(1) == torch.tensor(shape["label"])
    assert seen.correct == right.sum()


def test_there_are_cases():
    assert len(LEARNED) >= 4


# -- the slide -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("stem", "index"), SCHEDULES)
def test_the_probability_of_every_step(stem, index):
    case = read(stem)["replacement"][index]
    epochs, batches = case["epochs"], case["batches"]
    settings = Settings(epochs=epochs, sliding=not case["no_sliding_training"], sliding_power=float(case["pow"]))
    transfer = Transfer(settings, batches)
    found = [transfer.probability(e, b) for e in range(1, epochs + 1) for b in range(1, batches + 1)]
    assert found == pytest.approx(case["probability"], abs=1e-15)


def test_what_the_slide_replaces_by_hand():
    """Images are grey values 1 to 6, events are 9; the sample is replaced whose number is below the probability."""
    pair = DomainPair(torch.arange(1.0, 7).view(6, 1, 1, 1), torch.full((6, 2, 2, 1, 1), 9.0))
    transfer = Transfer(Settings(), batches=1)
    torch.manual_seed(5)
    drawn = torch.rand(6)
    torch.manual_seed(5)
    images, events = transfer.slide(pair, 0.4)
    expected = [9.0 if number < 0.4 else value for value, number in enumerate(drawn.tolist(), 1)]
    assert 1 < expected.count(9.0) < 5
    assert images.shape == (6, 2, 2, 1, 1) and images[:, 1, 1, 0, 0].tolist() == expected
    assert torch.equal(events, pair.events)
    torch.manual_seed(5)
    with micro_batch(torch.tensor([1, 4]), count=6):
        part, _ = transfer.slide(DomainPair(*(x[[1, 4]] for x in pair)), 0.4)
    assert part[:, 0, 0, 0, 0].tolist() == [expected[1], expected[4]]


# -- runs ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    assert transferred(output) == 0
    return output


def test_a_run_tells_of_both_domains(whole):
    folder = folder_of(whole)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for epoch, row in enumerate(rows, 1):
        # 101 of 1,438 recordings: 5 steps; sigma(1) = 0.731 is near the learned weight of each step's terms
        total = row["source_loss"] + row["target_loss"] + 0.5 * row["domain_loss"]
        assert row["train_loss"] == pytest.approx(total, rel=1e-6)
        assert row["replaced"] == pytest.approx((epoch * 5 - 1) / 10)
        assert row["target_loss"] < 0.5 * row["source_loss"], "its steps weigh 1 - 0.73"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["spec"] == "transfer_vgg(step=2, transfer=true, width=4)"
    assert summary["full_source"] == "digits(img_size=none)"
    assert summary["source_data"] == data_identity(create("dataset", "digits"))
    coefficients = last_state(whole)["model"]["coefficient.0"], last_state(whole)["model"]["coefficient.1"]
    assert all(0 < abs(c.item() - 1) < 0.1 for c in coefficients), "learned, from 1 on"


def test_resumed_in_the_middle_of_sliding(whole, tmp_path, monkeypatch):
    """Stopped in step 3 of 5 of the first epoch, and in step 2 of the second: the same state to the bit."""
    for stop in (3, 4):
        with monkeypatch.context() as patch:
            at_step(patch, stop, lambda trainer: os.kill(os.getpid(), signal.SIGTERM))
            assert transferred(tmp_path) == 143
    assert last_state(tmp_path)["epoch"] == 1
    assert len(last_state(tmp_path)["terms"]) == 2
    assert transferred(tmp_path) == 0
    one, two = (last_state(output) for output in (whole, tmp_path))
    for name in ("model", "optimizer", "losses", "best"):
        assert same(one[name], two[name]), name
    rows = [
        [{**json.loads(line), "seconds": 0, "images_per_second": 0, "peak_memory_mib": 0} for line in text.splitlines()]
        for text in ((folder_of(output) / "metrics.jsonl").read_text() for output in (whole, tmp_path))
    ]
    assert rows[0] == rows[1]


def test_testing_needs_no_source(whole, tmp_path):
    folder = folder_of(whole)
    summary = json.loads((folder / "summary.json").read_text())
    result = zoo.evaluate(folder, source_dir=tmp_path)
    assert result.summary["top1"] == summary["top1"]
    events = create("dataset", "digits_dvs", step=2, event_size=16)
    assert result.model(torch.rand(3, 2, 2, 16, 16)).shape == (3, events.num_classes)


def test_another_source_is_another_run(whole, monkeypatch, capsys):
    folder = folder_of(whole)
    for word, told in {
        "--source-ratio=0.5": "source_ratio=1.0",
        "--no-sliding": "sliding=True",
        "--source=digits(img_size=20)": "source='digits'",
    }.items():
        assert main.main(["--resume", str(folder), word]) == 2
        assert f"was run with other settings ({told}" in one_line(capsys)
    images = create("dataset", "digits")
    images.train.images = images.train.images.copy()
    images.train.images[0, 0, 0] ^= 1
    monkeypatch.setattr("st_utils.training.launch.load_source", lambda *_: SourceImages(images))
    with pytest.raises(UserError, match=r"with other settings \(data of the source \(the same counts, other contents"):
        zoo.run(resume=folder)


TWO = """
import json, sys, torch
torch.set_num_threads(1)
from st_utils.training import distributed
from tests.training.test_distributed import DTYPES, spied_losses
from tests.training.test_transfer_step import transferred
class Patch:
    setattr = staticmethod(setattr)
losses = spied_losses(Patch, torch.float64)
assert transferred(sys.argv[1], "--sync-bn", "--lr", "5e-3") == 0
json.dump(losses, open(f"{sys.argv[1]}.{distributed.rank()}", "w"))
"""


def test_two_processes_give_the_losses_of_one(tmp_path, monkeypatch):
    """The distance between the domains is one of the whole batch, not of each process's share."""
    (tmp_path / "script.py").write_text(TWO)
    process = torchrun(str(tmp_path / "script.py"), str(tmp_path / "two"))
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0, told
    one = spied_losses(monkeypatch, DTYPES["float64"])
    assert transferred(tmp_path / "one", "--sync-bn", "--lr", "5e-3") == 0
    first, second = (json.loads((tmp_path / f"two.{rank}").read_text()) for rank in (0, 1))
    assert len(one) == 10 and first == second
    np.testing.assert_allclose(first, one, rtol=0, atol=1e-9)
    rows = [
        json.loads((folder_of(tmp_path / name) / "metrics.jsonl").read_text().splitlines()[-1])
        for name in ("one", "two")
    ]
    assert rows[0]["domain_loss"] == pytest.approx(rows[1]["domain_loss"], abs=1e-9)


# -- any model, and what is refused --------------------------------------------------------------------------
def test_a_transformer_learns_from_both_domains(tmp_path):
    assert transferred(tmp_path, "--epochs", "1", model=SPIKFORMER) == 0
    state = load_file(folder_of(tmp_path) / "last.safetensors")  # the tested weights, under plain names
    alone = zoo.create_model(SPIKFORMER, num_classes=10, in_channels=2, img_size=16, step=2).state_dict()
    assert state.keys() - alone.keys() == {"source_head.weight", "source_head.bias", "coefficient.0", "coefficient.1"}
    assert alone.keys() <= state.keys()


def test_both_domains_under_all_that_changes_how_training_computes(tmp_path):
    """Packed spikes, activation checkpointing and loader processes change no number; bfloat16 changes few."""
    common = ["--epochs", "1", "--ema", "0.5"]
    assert transferred(tmp_path / "plain", *common, model=SPIKFORMER) == 0
    assert (
        transferred(tmp_path / "same", *common, "--pack-spikes", "--recompute", "--workers", "2", model=SPIKFORMER) == 0
    )
    plain, other = (last_state(tmp_path / name) for name in ("plain", "same"))
    assert same(plain["model"], other["model"]) and same(plain["ema"], other["ema"])
    assert transferred(tmp_path / "half", *common, "--amp", "bf16", "--channels-last", model=SPIKFORMER) == 0
    rows = [json.loads((folder_of(tmp_path / name) / "metrics.jsonl").read_text()) for name in ("plain", "half")]
    assert rows[1]["train_loss"] == pytest.approx(rows[0]["train_loss"], rel=0.05)
    folder = folder_of(tmp_path / "half")
    tested = json.loads((folder / "summary.json").read_text())["top1"]
    assert zoo.evaluate(folder).summary["top1"] == tested


def test_a_model_without_features_is_refused(tmp_path, capsys):
    assert transferred(tmp_path, model="vit(embed_dim=16, depth=1, num_heads=2)") == 2
    assert "can't learn from two domains: give it features(x), [T, B, D], and a linear head" in one_line(capsys)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--mixup", "0.5"], "mixup, cutmix and event_mix mix samples of one domain"),
        (["--accum-steps", "2"], "which --accum-steps splits: leave it out, or give --domain-weight 0"),
        (["--no-tet"], "the steps' weights need the loss of each step: tet=true, or regularize=false"),
        (["--source", "digits_dvs"], "source digits_dvs has frames"),
        (["--target-ratio", "0"], "target_ratio takes a number, above 0, 1 or less, not 0"),
    ],
)
def test_what_does_not_go_together(words, told, tmp_path, capsys):
    assert transferred(tmp_path, *words) == 2
    assert told in one_line(capsys)


def test_a_two_headed_model_without_a_source_is_refused(tmp_path, capsys):
    words = ["--model", f"{VGG[:-1]}, transfer=true)", "--dataset", "digits_dvs", "--step", "2", "--event-size", "16"]
    for how in ([], ["--dry-run", "1"]):
        assert main.main([*words, "--output", str(tmp_path), *how]) == 2
        assert "learns from images and events: name a data set of images with --source" in one_line(capsys)
