"""Every published model gives the authors' numbers on the authors' weights, in float64."""

from __future__ import annotations

import pytest
import torch

from tests import golden_numbers as golden
from zoo import authors_spec, create_model, load_published

PATTERNS = ("spikformer_*", "sdt*", "statten*")
FILES = golden.files(*PATTERNS)


def build(numbers: dict):
    """The model of a golden file with the authors' weights, in float64, and its input."""
    source, x = numbers["source"], golden.draw("input", numbers["input"])
    frames = x.shape[1] if numbers["input"]["layout"] == "BTCHW" else 4
    spec = authors_spec(source["repository"], source["file"], numbers["constructor"], frames, numbers["neuron"])
    model = create_model(spec).double()
    return load_published(model, golden.state_dict(numbers)), x


def test_the_golden_files_are_there():
    names = {path.stem for path in FILES}
    assert {"spikformer_cifar", "spikformer_dvs", "spikformer_imagenet", "sdt", "sdt_dvs"} <= names
    assert {"statten", "statten_dvs", "statten_sdt", "statten_dvs_sdt", "sdt_v2", "sdt_v3", "sdt_v3_large"} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_outputs_and_gradients(path):
    numbers = golden.read(path)
    model, x = build(numbers)
    per_step = numbers["eval"]["output"]["shape"][0] == x.shape[1] and x.dim() == 5
    for mode in ("eval", "train"):
        model.train(mode == "train")
        output = model(x, per_step=per_step)
        torch.testing.assert_close(output, golden.tensor(numbers[mode]["output"]), rtol=0, atol=1e-9)
    loss = golden.loss_of(output)
    assert loss.item() == pytest.approx(numbers["train"]["loss"], abs=1e-8)
    loss.backward()
    check_gradients(model, numbers["train"]["grads"])


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
    """The spiking layers fire as often as the authors', in the order in which they run."""
    numbers = golden.read(path)
    model, x = build(numbers)
    rates = []
    for module in model.modules():
        if getattr(module, "part_kind", None) == "node":
            module.register_forward_hook(lambda m, i, out: rates.append((out != 0).double().mean().item()))
    with torch.no_grad():
        model.eval()(x)
    assert rates == pytest.approx(numbers["firing"], abs=1e-9)
