"""Norm and neuron as one where the channels lie last in memory, and where one step stands for all, against the pair."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from registry import create
from st_utils.kernels.common.layout import channels_last, to_channels_last
from st_utils.kernels.node import cpu
from st_utils.layer.norm_then_fire import fused_backend, norm_then_fire

pytestmark = pytest.mark.skipif(not cpu.available(), reason="no C++ compiler")
NODES = (
    "lif",
    "if(v_reset=none)",
    "plif(decay_input=false, v_reset=none, detach_reset=false)",
    "plif(v_reset=-0.2, surrogate=atan)",
)
# Rows of a block: several, one, a part of one; channels that no vector divides; more rows than a run of the statistics.
SHAPES = ((4, 3, 5, 6, 7), (1, 2, 3, 4, 4), (7, 2, 2, 23, 31), (4, 2, 300, 3, 5), (33, 4, 17, 2, 3), (3, 5, 256, 1, 4))


def pair(channels: int, node: str, training: bool) -> tuple[nn.Module, nn.Module]:
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias, 0, 1)
    return norm.train(training), create("node", node)


def check(modules: tuple[nn.Module, nn.Module], x: Tensor, steps: int, tolerance: float) -> None:
    """Spikes, and all gradients and running statistics, against the modules on float32 copies of all steps."""
    norm, node = copy.deepcopy(modules)
    mine, theirs = x.detach().requires_grad_(), x.detach().float().contiguous().requires_grad_()
    assert fused_backend(*modules, mine, steps) == "cpu"
    spikes = norm_then_fire(*modules, mine, steps)
    wanted = node(norm(theirs.expand(steps, *x.shape[1:]).flatten(0, 1)).unflatten(0, (steps, -1)))
    assert channels_last(spikes) == channels_last(x)
    assert spikes.dtype == x.dtype
    assert torch.equal(spikes.float(), wanted)
    grad = torch.randn_like(wanted).to(x.dtype)
    spikes.backward(grad)
    wanted.backward(grad.float())
    torch.testing.assert_close(mine.grad.float(), theirs.grad, rtol=tolerance, atol=tolerance * len(spikes) / len(x))
    for module, other in zip(modules, (norm, node), strict=True):
        for (name, got), want in zip(module.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(got.grad, want.grad, rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
        for got, want in zip(module.buffers(), other.buffers(), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("once", [False, True], ids=["all_steps", "one_step"])
@pytest.mark.parametrize("order", [to_channels_last, torch.clone], ids=["last", "contiguous"])
@pytest.mark.parametrize("node", NODES)
def test_the_pair(node, order, once, dtype):
    torch.manual_seed(0)
    for shape in SHAPES:
        steps, *sizes = shape
        if order is torch.clone and shape[3] * shape[4] < 16:
            continue  # goes one by one
        for training in (True, False):
            x = (torch.randn(1 if once else steps, *sizes) * 2 + 3).to(dtype)
            check(pair(shape[2], node, training), order(x), steps, 1e-4 if dtype == torch.float32 else 2e-2)


def test_statistics_of_numbers_far_from_zero_after_a_run_of_zeros():
    x = torch.randn(4, 2, 3, 19, 19) + 3000
    x[0, 0] = 0
    norm, node = pair(3, "lif", True)
    norm.momentum = 1.0
    norm_then_fire(norm, node, to_channels_last(x))
    by_channel = x.double().transpose(0, 2).flatten(1)
    torch.testing.assert_close(norm.running_var.double(), by_channel.var(1), rtol=1e-4, atol=0)
    torch.testing.assert_close(norm.running_mean.double(), by_channel.mean(1), rtol=1e-6, atol=0)


def test_any_number_of_threads_gives_the_same_numbers():
    torch.manual_seed(0)
    x, grad, threads = (
        to_channels_last(torch.randn(4, 8, 48, 16, 16)),
        torch.randn(4, 8, 48, 16, 16),
        torch.get_num_threads(),
    )
    modules, results = pair(48, "plif", True), []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            norm, node = copy.deepcopy(modules)
            leaf = x.clone().requires_grad_()
            norm_then_fire(norm, node, leaf).backward(grad)
            results.append([leaf.grad, norm.weight.grad, norm.bias.grad, node.w.grad, norm.running_var])
    finally:
        torch.set_num_threads(threads)
    for others in results[1:]:
        for first, other in zip(results[0], others, strict=True):
            assert torch.equal(first, other)


def test_large_tensors_which_are_written_past_the_caches():
    torch.manual_seed(0)
    x = torch.randn(4, 8, 129, 32, 33) * 2
    for training in (True, False):
        check(pair(129, "lif", training), to_channels_last(x), 4, 1e-4)


@pytest.mark.parametrize("steps", [2, 5])
def test_opcheck(steps):
    norm, node = pair(3, "plif", True)
    x = to_channels_last(torch.randn(1 if steps == 5 else 2, 2, 3, 4, 5)).requires_grad_()
    from st_utils.kernels.node.op import arguments

    decay, form = arguments(node.decay().detach().requires_grad_(), node.form())
    torch.library.opcheck(
        torch.ops.zoo.norm_and_fire, (x, norm.weight, norm.bias, None, None, 1e-5, decay, form, steps, "cpu")
    )
