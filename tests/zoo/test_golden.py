"""Every published model gives the authors' numbers on the authors' weights, in float64."""

from __future__ import annotations

import re

import pytest
import torch

from tests import golden_numbers as golden
from zoo import authors_spec, create_model, load_published

PATTERNS = ("spikformer_*", "sdt*", "statten*")
PATTERNS += ("spikingformer*", "spikf_semm*", "sglformer*", "swformer*", "spikingresformer*")
PATTERNS += ("qkformer*", "tim*")
PATTERNS += ("dta_snn*",)
FILES = golden.files(*PATTERNS)


def build(numbers: dict):
    """The model of a golden file with the authors' weights, in float64, and its input."""
    source, x = numbers["source"], golden.draw("input", numbers["input"])
    frames = x.shape[1] if numbers["input"]["layout"] == "BTCHW" else 4
    place = source["repository"], source["file"], numbers["constructor"], frames, numbers["neuron"]
    spec = authors_spec(*place, re.sub(r".*\((.+)\)", r"\1", source["class"]))
    model = create_model(spec).double()
    return load_published(model, golden.state_dict(numbers)), x


def run(model, x, numbers: dict):
    """The output in the authors' layout: [B, classes], or of each step [T, B, classes], in DTA-SNN [B, T, classes]."""
    if "DTA" in numbers["source"]["repository"]:
        return model(x, per_step=True).transpose(0, 1)
    return model(x, per_step=len(numbers["eval"]["output"]["shape"]) == 3)


def test_the_golden_files_are_there():
    names = {path.stem for path in FILES}
    assert {"spikformer_cifar", "spikformer_dvs", "spikformer_imagenet", "sdt", "sdt_dvs"} <= names
    assert {"spikingformer_authors_cifar", "spikingformer_authors_dvs", "spikingformer_authors_imagenet"} <= names
    assert {"spikingresformer", "spikingresformer_authors", "spikingresformer_dvsg"} <= names
    assert {"statten", "statten_dvs", "statten_sdt", "statten_dvs_sdt", "sdt_v2", "sdt_v3", "sdt_v3_large"} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_outputs_and_gradients(path):
    numbers = golden.read(path)
    model, x = build(numbers)
    for mode in ("eval", "train"):
        model.train(mode == "train")
        output = run(model, x, numbers)
        torch.testing.assert_close(output, golden.tensor(numbers[mode]["output"]), rtol=0, atol=1e-9)
    loss = golden.loss_of(output, numbers["train"])
    assert loss.item() == pytest.approx(numbers["train"]["loss"], abs=1e-8)
    loss.backward()
    check_gradients(model, numbers["train"]["grads"])
    buffers = dict(model.named_buffers())
    for key, expected in numbers["train"].get("buffers", {}).items():
        assert buffers[model.published.rename(key)].flatten().tolist() == pytest.approx(expected, abs=1e-12), key


def check_gradients(model, expected: dict) -> None:
    parameters = dict(model.named_parameters())
    seen = set()
    for key, numbers in expected.items():
        name = model.published.rename(key)
        if numbers is None:
            assert name == "", f"{key} is unused in the authors' code"
            continue
        seen.add(name)
        gradient = parameters[name].grad.flatten()
        assert gradient.sum().item() == pytest.approx(numbers["sum"], abs=1e-6), key
        assert gradient.norm().item() == pytest.approx(numbers["norm"], abs=1e-6), key
        assert gradient[:8].tolist() == pytest.approx(numbers["head"], abs=1e-6), key
    assert seen == set(parameters)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_firing_rates(path):
    """The spiking layers fire as often as the authors', in the order in which they run.

    A node that runs on for longer than `step` (SGLFormer's q, k and v) counts once for each use; one that takes step
    and sample for one axis (QKFormer's leak) counts once.
    """
    numbers = golden.read(path)
    model, x = build(numbers)
    rates, step = [], model.encoder.step

    def record(module, inputs, spikes):
        uses = [spikes] if spikes.shape[1] % len(x) else spikes.split(step)
        rates.extend((use != 0).double().mean().item() for use in uses)

    for module in model.modules():
        if getattr(module, "part_kind", None) == "node":
            module.register_forward_hook(record)
    with torch.no_grad():
        model.eval()(x)
    assert rates == pytest.approx(numbers["firing"], abs=1e-9)
