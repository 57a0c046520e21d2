"""What is computed once for all steps of a static image, against a copy of the image a step, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import zoo
from st_utils.layer import ConvNorm, ConvNormNode
from st_utils.layer.over_time import drop_repeated_steps, over_time
from tests.zoo.test_models import picture

STEPS = 4


def both_ways(layer: nn.Module, run, x: torch.Tensor) -> None:
    """`run(layer, x)` with the steps of x one in memory and each on its own: outputs, gradients, statistics."""
    layer, other = copy.deepcopy(layer), copy.deepcopy(layer)
    once, copies = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = run(layer, once.expand(STEPS, *x.shape))
    wanted = run(other, copies.expand(STEPS, *x.shape).contiguous())
    torch.testing.assert_close(y, wanted, rtol=0, atol=1e-12)
    grad = torch.randn_like(wanted)
    y.backward(grad)
    wanted.backward(grad)
    torch.testing.assert_close(once.grad, copies.grad, rtol=1e-11, atol=1e-12)
    for (name, got), want in zip(layer.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")
    for (name, got), want in zip(layer.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-13, atol=0, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 5, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.BatchNorm2d(3, momentum=0.7, affine=False),
        nn.BatchNorm2d(3, momentum=None),
        nn.BatchNorm2d(3, track_running_stats=False),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5)),
    ],
    ids=str,
)
def test_a_layer(layer, training):
    torch.manual_seed(0)
    layer = copy.deepcopy(layer).double().train(training)
    for size in ((2, 3, 6, 5), (1, 3, 2, 2)):
        both_ways(layer, over_time, torch.randn(*size, dtype=torch.float64))


def test_a_norm_of_one_number_a_channel_sees_all_steps():
    both_ways(nn.BatchNorm2d(3).double(), over_time, torch.randn(1, 3, 1, 1, dtype=torch.float64))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "layer", [ConvNorm(3, 5, kernel=3), ConvNormNode(3, 5, "plif", STEPS, kernel=3)], ids=["norm", "node"]
)
def test_convolution_with_norm(layer, training):
    torch.manual_seed(0)
    layer = copy.deepcopy(layer).double().train(training)
    both_ways(layer, lambda f, x: f(x), torch.randn(2, 3, 6, 5, dtype=torch.float64))


def test_the_convolution_runs_once():
    layer, seen = ConvNorm(3, 5), []
    layer.conv.register_forward_hook(lambda _, inputs, output: seen.append(len(output)))
    y = layer(torch.randn(2, 3, 4, 4).expand(STEPS, 2, 3, 4, 4))
    assert seen == [2]
    assert y.shape == (STEPS, 2, 5, 4, 4)
    assert len(drop_repeated_steps(y)) == 1


@pytest.mark.parametrize("spec", ["spikformer", "sdt", "sdt_v2", "spikformer(embedding=vit_embed)"])
def test_a_model_gives_an_image_what_it_gives_as_many_frames(spec):
    torch.manual_seed(0)
    sizes = {"embed_dim": 16, "depth": 1, "num_heads": 2, "mlp_ratio": 2.0, "step": STEPS}
    model = zoo.create_model(spec, **sizes).double()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.ones_(norm.bias)
    other, x = copy.deepcopy(model), picture().double()
    for training in (True, False):
        y, wanted = model.train(training)(x), other.train(training)(x[:, None].repeat(1, STEPS, 1, 1, 1))
        torch.testing.assert_close(y, wanted, rtol=0, atol=1e-11)
    model.train()(x).sum().backward()
    other.train()(x[:, None].repeat(1, STEPS, 1, 1, 1)).sum().backward()
    for (name, got), want in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad, rtol=1e-7, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}")
    for got, want in zip(model.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)
