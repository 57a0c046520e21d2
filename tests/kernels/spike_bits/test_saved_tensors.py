"""Packed spikes: the same gradients from less memory, for every model and attention."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from benchmarks.memory import saved_bytes
from registry import names
from st_utils.kernels.spike_bits import saved_tensors as packing
from st_utils.kernels.spike_bits.saved_tensors import packed_spikes
from st_utils.node.base import build_node
from tests.zoo.test_models import picture, small
from tests.zoo.test_parts import TINY, images


@pytest.fixture(autouse=True)
def small_tensors_too(monkeypatch):
    monkeypatch.setattr(packing, "SMALLEST", 1)


def gradients(model: nn.Module, x: torch.Tensor, packed: bool, autocast: bool = False) -> dict[str, torch.Tensor]:
    """Of every parameter and of the input, from one state of the model and of the generators."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.zero_grad()
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    with packed_spikes() if packed else nullcontext(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = model(x).float().square().sum()
    loss.backward()
    model.load_state_dict(before)
    return {"input": x.grad, **{name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}}


def same_gradients(model: nn.Module, x: torch.Tensor, **kwargs: bool) -> bool:
    plain, packed = (gradients(model, x, packed, **kwargs) for packed in (False, True))
    assert len(plain) > 1
    return plain.keys() == packed.keys() and all(torch.equal(plain[name], packed[name]) for name in plain)


@pytest.mark.parametrize("name", names("model", families=False))
def test_gradients_of_every_model(name):
    model = small(name)
    assert same_gradients(model, picture())
    assert same_gradients(model, picture(), autocast=True)


@pytest.mark.parametrize("attention", names("attention"))
def test_gradients_of_every_attention(attention):
    torch.manual_seed(0)
    assert same_gradients(zoo.create_model("spikformer", **TINY, attention=attention), images())


@pytest.mark.parametrize("node", ["if", "plif", "klif", "glif", "clif", "psn", "ilif", "lif(backend=torch)"])
def test_gradients_of_nodes(node):
    torch.manual_seed(0)
    assert same_gradients(zoo.create_model("sdt", **TINY, node=node), images())


def step_of(model: nn.Module, x: torch.Tensor, packed: bool):
    def step() -> None:
        with packed_spikes() if packed else nullcontext():
            loss = model(x).square().sum()
        loss.backward()

    return step


def test_spikes_take_a_bit_each():
    """conv(s) keeps s, and both views of it: 4 x 2 x 16 x 8 x 8 spikes are 8,192 numbers."""
    node, conv = build_node("lif", 4), nn.Conv2d(16, 16, 1)
    s = node(torch.randn(4, 2, 16, 8, 8)).flatten(0, 1).requires_grad_()

    def model(x: torch.Tensor) -> torch.Tensor:
        x = x * 1  # a storage of its own
        return conv(x) + conv(x.transpose(2, 3))

    assert saved_bytes(lambda: model(s).sum().backward()) == 8192 * 4

    def packed() -> None:
        with packed_spikes():
            loss = model(s).sum()
        loss.backward()

    assert saved_bytes(packed) == 8192 // 8


@pytest.mark.parametrize("name", ["spikformer", "sdt"])
def test_a_model_keeps_less(name):
    model = small(name)
    plain, packed = (saved_bytes(step_of(model, picture(), on)) for on in (False, True))
    assert packed < 0.7 * plain


def test_a_storage_is_packed_once(monkeypatch):
    seen = []
    monkeypatch.setattr(packing, "pack", lambda x: seen.append(x) or packing_pack(x))
    x = torch.ones(4, 6, requires_grad=True) * 1
    with packed_spikes():
        y = x * x + x.t().sin().t() + x[1:3, ::2].exp().sum() + x.unsqueeze(0).expand(3, 4, 6).cos().sum(0)
    assert sum(len(s) == 24 and s.eq(1).all() for s in map(torch.Tensor.detach, seen)) == 1
    y.sum().backward()


packing_pack = packing.pack


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_views_come_back_as_they_were(dtype):
    base = (torch.arange(2 * 3 * 4 * 5) % 2).to(dtype).view(2, 3, 4, 5).requires_grad_() * 1
    views = [base, base.permute(3, 1, 0, 2), base[1, 1:, ::2], base[:, :1].expand(2, 3, 4, 5), base.flatten()[7:8]]
    seen = []

    class Keep(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sum()

        @staticmethod
        def backward(ctx, grad):
            seen.append(ctx.saved_tensors[0])
            return grad.expand(seen[-1].shape)

    for view in views:
        with packed_spikes():
            loss = Keep.apply(view)
        loss.backward(retain_graph=True)
        back = seen.pop()
        assert (back.shape, back.stride(), back.dtype) == (view.shape, view.stride(), view.dtype)
        assert torch.equal(back, view)
        assert back.data_ptr() != view.data_ptr()


def test_a_change_in_place_after_saving():
    """Packed: the gradient of what was computed. Kept as it is: torch's error, which hooks would silence."""
    x = torch.zeros(6, requires_grad=True)
    spikes, reals = x * 1, x + torch.arange(6) / 7
    with packed_spikes():
        of_spikes, of_reals = spikes * spikes, reals * reals
        spikes.add_(1)
        again = spikes * spikes
    assert torch.equal(torch.autograd.grad(of_spikes.sum() + again.sum(), x)[0], torch.full((6,), 2.0))
    reals.detach().add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        of_reals.sum().backward()


def test_second_derivatives():
    x = (torch.arange(8.0) % 2).requires_grad_()
    with packed_spikes():
        y = (x * 1).pow(3)
        (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(first, 3 * x**2)
    assert torch.equal(second, 6 * x)


def test_checkpointing_goes_with_it():
    model, x = small("spikformer"), picture()
    plain = gradients(model, x, packed=False)

    def checkpointed(y: torch.Tensor) -> torch.Tensor:
        return torch.utils.checkpoint.checkpoint(model, y, use_reentrant=False)

    wrapped = nn.Module()
    wrapped.model, wrapped.forward = model, checkpointed
    packed = gradients(wrapped, x, packed=True)
    assert all(torch.equal(plain[name.removeprefix("model.")], packed[name]) for name in packed)


def test_compiled_gradients():
    torch._dynamo.reset()
    model = small("spikformer")
    compiled = torch.compile(model, fullgraph=True)
    compiled.state_dict, compiled.load_state_dict = model.state_dict, model.load_state_dict
    assert same_gradients(compiled, picture())
    plain, packed = (saved_bytes(step_of(compiled, picture(), on)) for on in (False, True))
    assert packed < 0.8 * plain


def test_the_context_holds_nothing_back():
    """A whole training loop may run inside: what a step packed is gone with its graph."""
    context = packed_spikes()
    with context:
        for _ in range(3):
            x = torch.ones(50, requires_grad=True) * 1
            F.relu(x * x).sum().backward()
            del x
    assert len(context._storages) == 0
