"""Batch norm and neuron as one, against the two modules one after the other."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from registry import create
from st_utils.kernels import cpu
from st_utils.kernels.norm_node import fusable, norm_then_fire
from st_utils.layer import ConvNormNode
from st_utils.training.firing import FiringRates

pytestmark = pytest.mark.skipif(not cpu.available(), reason="no C++ compiler")
NODES = (
    "lif",
    "if(v_reset=none)",
    "plif(decay_input=false, v_reset=none, detach_reset=false)",
    "plif(v_reset=-0.2, surrogate=atan)",
)
SHAPES = ((4, 3, 5, 6, 7), (1, 2, 3, 4, 4), (7, 2, 2, 23, 31), (4, 2, 1, 40, 41))


def pair(channels: int, node: str = "lif", training: bool = True, **settings: object) -> tuple[nn.Module, nn.Module]:
    norm = nn.BatchNorm2d(channels, **settings)
    if norm.affine:
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.bias, 0, 1)
    return norm.train(training), create("node", node)


def one_by_one(norm: nn.Module, node: nn.Module, x: Tensor) -> Tensor:
    return node(norm(x.flatten(0, 1)).unflatten(0, x.shape[:2]))


def check(modules: tuple[nn.Module, nn.Module], x: Tensor, tolerance: float = 1e-4) -> None:
    others = copy.deepcopy(modules)
    grad, mine, theirs = torch.randn_like(x), x.clone().requires_grad_(), x.float().requires_grad_()
    assert fusable(*modules, mine)
    spikes, wanted = norm_then_fire(*modules, mine), one_by_one(*others, theirs)
    assert spikes.dtype == x.dtype
    assert torch.equal(spikes.float(), wanted)
    spikes.backward(grad)
    wanted.backward(grad.float())
    torch.testing.assert_close(mine.grad.float(), theirs.grad, rtol=tolerance, atol=tolerance)
    for module, other in zip(modules, others, strict=True):
        for (name, got), want in zip(module.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(got.grad, want.grad, rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
        for got, want in zip(module.buffers(), other.buffers(), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("node", NODES)
def test_the_pair(node, training, dtype):
    torch.manual_seed(0)
    for shape in SHAPES:
        x = (torch.randn(shape) * 2 + 3).to(dtype)
        check(pair(shape[2], node, training), x, 1e-4 if dtype == torch.float32 else 2e-2)


def test_no_weights_and_another_momentum_and_eps():
    check(pair(3, affine=False, momentum=0.3, eps=0.1), torch.randn(4, 2, 3, 5, 5))


def test_statistics_of_numbers_far_from_zero():
    x = torch.randn(4, 2, 3, 9, 9) + 3000
    norm, node = pair(3, momentum=1.0)
    norm_then_fire(norm, node, x)
    by_channel = x.double().transpose(0, 2).flatten(1)
    torch.testing.assert_close(norm.running_var.double(), by_channel.var(1), rtol=1e-4, atol=0)
    torch.testing.assert_close(norm.running_mean.double(), by_channel.mean(1), rtol=1e-7, atol=0)


def test_who_goes_one_by_one():
    """Whatever the fused pair does not compute, or does not show to a hook."""
    x = torch.randn(4, 2, 3, 5, 5)
    hooked, watched, momentless = pair(3), pair(3), pair(3, momentum=None)
    hooked[1].register_forward_hook(lambda *_: None)
    watched[0].register_full_backward_hook(lambda *_: None)
    sync = nn.SyncBatchNorm(3), create("node", "lif")
    frozen = pair(3, track_running_stats=False)
    told = nn.BatchNorm2d(3), create("node", "lif(backend=torch)")
    for modules in (hooked, watched, momentless, sync, frozen, told):
        assert not fusable(*modules, x)
    assert fusable(*pair(3), x)
    assert not fusable(*pair(3), x.double())
    assert not fusable(*pair(3), x.transpose(3, 4))
    assert not fusable(*pair(3), torch.randn(4, 2, 3, 2, 2))
    for modules in (hooked, momentless, frozen, told):
        assert torch.equal(norm_then_fire(*modules, x), one_by_one(*modules, x))


def test_firing_rates_are_counted():
    layer = ConvNormNode(2, 3, "lif", step=4, kernel=3)
    x, rates = torch.rand(4, 2, 2, 6, 6), FiringRates(layer)
    with rates.counting():
        spikes = layer(x)
    assert rates.mean() == pytest.approx(spikes.mean().item())


@pytest.mark.parametrize("training", [True, False])
def test_opcheck(training):
    norm, node = pair(3, "plif", training)
    x, decay = torch.randn(4, 2, 3, 16).requires_grad_(), node.decay().detach().requires_grad_()
    known = (None, None) if training else (norm.running_mean, norm.running_var)
    settings = (decay, 0.0, *node.form())
    torch.library.opcheck(torch.ops.zoo.norm_and_fire, (x, norm.weight, norm.bias, *known, 1e-5, *settings))


def test_a_layer_compiles_without_a_break():
    torch.manual_seed(0)
    layer, x = ConvNormNode(2, 3, "plif", step=4, kernel=3), torch.randn(4, 2, 2, 6, 6)
    other = copy.deepcopy(layer)
    spikes = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    wanted = other(x)
    assert torch.equal(spikes, wanted)
    spikes.sum().backward()
    wanted.sum().backward()
    for (name, got), want in zip(layer.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad, msg=lambda m, n=name: f"{n}: {m}")
    assert layer.norm.num_batches_tracked == 1
    torch.testing.assert_close(layer.norm.running_var, other.norm.running_var)


def test_nothing_but_the_input_and_the_statistics_is_saved():
    kept, x = [], torch.randn(4, 2, 3, 8, 8).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        norm_then_fire(*pair(3), x)
    assert sum(t.numel() for t in kept) == x.numel() + 4 * 3
