"""The networks with two domains: the authors' numbers, step by step norms, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zoo
from st_utils.backbone.convnet import StepNorm
from st_utils.braincog.imports import import_braincog
from st_utils.braincog.nodes import neuron_class
from st_utils.errors import UserError
from tests import golden_numbers as golden
from tests.zoo.test_golden import build, check_gradients
from tests.zoo.test_parts import missing_gradients

FILES = golden.files("transfer_vgg*", "transfer_resnet18*")
TINY = {"width": 4, "step": 2, "img_size": 16, "num_classes": 3}
MODELS = ("transfer_vgg", "transfer_resnet18", "sew_resnet18", "dta_snn18", "csnn(channels=[4, 8], kernel=3)")


def domains(numbers: dict) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    model, images = build(numbers)
    return model, images, golden.draw("input2", numbers["input2"])


def test_the_golden_files_are_there():
    assert {"transfer_vgg", "transfer_resnet18"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_outputs_features_and_gradients(path):
    numbers = golden.read(path)
    model, images, events = domains(numbers)
    with torch.no_grad():
        logits, features = model.eval()(images, events)
    torch.testing.assert_close(logits, golden.tensor(numbers["eval"]["output"]), rtol=0, atol=1e-9)
    for ours, theirs in zip(features, (numbers["eval"]["features"][d] for d in ("rgb", "dvs")), strict=True):
        for now, expected in zip(ours, theirs, strict=True):
            assert list(now.shape) == expected["shape"]
            assert now.sum().item() == pytest.approx(expected["sum"], abs=1e-8)
            assert now.norm().item() == pytest.approx(expected["norm"], abs=1e-9)
            assert now.flatten()[:8].tolist() == pytest.approx(expected["head"], abs=1e-9)
    events.requires_grad_()
    logits, _ = model.train()(images, events)
    torch.testing.assert_close(logits, golden.tensor(numbers["train"]["output"]), rtol=0, atol=1e-9)
    loss = golden.loss_of(logits)
    assert loss.item() == pytest.approx(numbers["train"]["loss"], abs=1e-8)
    loss.backward()
    # the steps' coefficients are the training loss's, and this loss does not use them
    expected = {key: value for key, value in numbers["train"]["grads"].items() if not key.startswith("coefficient")}
    model.coefficient = None
    check_gradients(model, expected)
    of_events = numbers["train"]["input_grads"]["input2"]
    assert events.grad.norm().item() == pytest.approx(of_events["norm"], abs=1e-6)
    assert events.grad.flatten()[:8].tolist() == pytest.approx(of_events["head"], abs=1e-6)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_firing_rates_and_one_input(path):
    """Of the images first; and events alone are classified by the events' head."""
    numbers = golden.read(path)
    model, images, events = domains(numbers)
    rates = []
    for module in model.eval().modules():
        if getattr(module, "part_kind", None) == "node":
            module.register_forward_hook(lambda m, i, out: rates.append((out != 0).double().mean().item()))
    with torch.no_grad():
        model(images, events)
        assert rates == pytest.approx(numbers["firing"], abs=1e-9)
        of_events = golden.tensor(numbers["eval"]["output"])[1]
        torch.testing.assert_close(model(events, per_step=True), of_events, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_any_convolutional_network_takes_two_domains(name):
    torch.manual_seed(0)
    model = zoo.create_model(name, transfer=True, in_channels=2, **{k: v for k, v in TINY.items() if fits(name, k)})
    logits, features = model(torch.rand(4, 2, 16, 16) * 2, torch.rand(4, 2, 2, 16, 16) * 2)
    assert logits.shape == (2, 2, 4, 3) and features.shape[:3] == (2, 2, 4)
    weights = torch.stack([c.sigmoid() for c in model.coefficient])
    (logits.square().sum() + (features.flatten(3).square().sum((0, 2, 3)) * weights[:, 0]).sum()).backward()
    assert missing_gradients(model) == []


def fits(name: str, argument: str) -> bool:
    return argument != "width" or not name.startswith("csnn")


def test_step_norm_is_the_norm_of_each_step():
    torch.manual_seed(0)
    theirs, ours = nn.BatchNorm2d(3), StepNorm(3, step=4)
    x = torch.randn(4, 5, 3, 2, 2) * torch.arange(1.0, 5).view(4, 1, 1, 1, 1)
    expected = torch.stack([theirs(now) for now in x])
    assert torch.equal(ours(x.flatten(0, 1)).view_as(x), expected)
    assert torch.equal(ours.running_var, theirs.running_var) and ours.num_batches_tracked == 4
    assert torch.equal(ours.eval()(x[0]), theirs.eval()(x[0]))


def test_legacy_step_norm_replaces_every_norm():
    model = zoo.create_model("transfer_resnet18", legacy_step_norm=True, **TINY)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 20 and all(type(m) is StepNorm for m in norms)


@pytest.mark.parametrize("file", ["vgg_snn", "resnet"])
def test_their_other_neurons(file):
    """A PLIF's learned w has its place; an ImageNet ResNet has the wide stem."""
    settings = {"node_type": "PLIFNode", "act_fun": "GateGrad", "threshold": 0.3, "dataset": "imnet"}
    place = "Brain-Cog-Lab/Transfer-for-DVS", f"braincog/model_zoo/{file}.py"
    model = zoo.create_model(zoo.authors_spec(*place, settings, 4))
    assert f"plif(surrogate=gate(strict=true), threshold={float(torch.tensor(0.3))})" in model.spec
    assert model.layers[0][0].kernel_size == (7, 7) if file == "resnet" else model.layers[0].conv.in_channels == 2
    weights = {
        "vgg_snn": {"feature.0.node.w"},
        "resnet": {"layer2.0.node1.w", "layer1.0.node2.w", "layer4.0.downsample.1.w"},
    }
    assert {model.published.rename(key) for key in weights[file]} <= dict(model.named_parameters()).keys()


def test_mistakes():
    x = torch.rand(2, 2, 16, 16)
    with pytest.raises(UserError, match="takes one input: build it with transfer=true"):
        zoo.create_model("transfer_vgg", **TINY)(x, x)
    model = zoo.create_model("transfer_vgg", transfer=True, **TINY)
    with pytest.raises(UserError, match="2 images and 1 event samples"):
        model(x, x[:1])
    with pytest.raises(UserError, match="psn.* has no membrane potential"):
        zoo.create_model("transfer_vgg", transfer=True, node="psn", **TINY)
    with pytest.raises(UserError, match="images of 16 x 16 at least"):
        zoo.create_model("transfer_vgg", img_size=8)
    source = "Brain-Cog-Lab/Transfer-for-DVS", "braincog/model_zoo/vgg_snn.py"
    with pytest.raises(UserError, match="no node here is the authors' NoiseLIFNode"):
        zoo.authors_spec(*source, {"node_type": "NoiseLIFNode"}, 4)
    with pytest.raises(UserError, match="runs step by step"):
        zoo.authors_spec(*source, {"layer_by_layer": True}, 4)


def test_scnn_is_the_authors_network_with_braincogs_neurons():
    """Their forward, written out step by step, images first; BrainCog's neurons, which spike in float32."""
    surrogates = import_braincog("base.strategy.surrogate")
    model = zoo.create_model("transfer_scnn(transfer=true)", num_classes=7, step=4)
    assert sum(p.numel() for p in zoo.create_model("transfer_scnn", num_classes=1623).parameters()) == 696_573
    first, second, hidden, head = *(model.layers[i][0] for i in (0, 3)), model.layers[6][1], model.head
    torch.manual_seed(0)
    domains = torch.rand(2, 3, 4, 2, 28, 28).mul(1.5)
    logits, features = model(*domains)
    for inputs, ours, potential in zip(domains, logits, features, strict=True):
        neurons = [
            neuron_class("LIFNode")(threshold=0.5, tau=2.0, act_fun=surrogates.BackEIGateGrad, step=4) for _ in range(3)
        ]
        for t in range(4):
            x = nn.functional.avg_pool2d(neurons[0](first(inputs[:, t])), 2)
            x = nn.functional.avg_pool2d(neurons[1](second(x)), 2)
            x = neurons[2](hidden(x.flatten(1)))
            torch.testing.assert_close(potential[t], neurons[2].mem, rtol=0, atol=1e-5)
            torch.testing.assert_close(ours[t], head(x), rtol=0, atol=1e-5)
        assert 0 < x.mean() < 1
