"""The whole model under torch.compile: without a break, compiled a few times at most, with the eager numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

import zoo
from st_utils.training import trainer
from tests.zoo.test_models import SMALL

SPECS = ("spikformer", "sdt(attention=statten)", "sdt(node=plif)", "spikformer(node=lif(backend=torch))")


def model(spec: str) -> torch.nn.Module:
    torch.manual_seed(0)
    net = zoo.create_model(spec, step=2, **SMALL)
    for norm in net.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(norm.bias)
    return net


@pytest.mark.parametrize("spec", SPECS)
def test_no_break_and_few_compilations(spec):
    torch._dynamo.reset()
    net, counter = model(spec), CompileCounterWithBackend("aot_eager")
    other, compiled = copy.deepcopy(net), torch.compile(net, fullgraph=True, backend=counter)
    for size in (4, 4, 3, 4, 3, 2, 5):  # the odd last batch of an epoch, and others
        x = torch.rand(size, 3, 32, 32)
        y, wanted = compiled(x), other(x)
        torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)
        y.square().sum().backward()
        wanted.square().sum().backward()
    assert counter.frame_count <= 2
    for (name, got), want in zip(net.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(got.grad, want[1].grad, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    for got, want in zip(net.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_the_real_compiler_trains_the_same():
    torch._dynamo.reset()
    net = model("spikformer")
    other, compiled, x = copy.deepcopy(net), trainer.compiled(net), torch.rand(2, 3, 32, 32)
    y, wanted = compiled(x), other(x)
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)
    y.square().sum().backward()
    wanted.square().sum().backward()
    for (name, got), want in zip(net.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(got.grad, want[1].grad, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
