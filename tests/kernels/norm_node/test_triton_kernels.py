"""Norm and neuron as one Triton kernel pair against batch norm and the definition, both in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from st_utils.kernels.norm_node import cuda as fused
from st_utils.kernels.norm_node.form import Norm
from tests.kernels.node.test_triton_kernels import DEVICE, INTERPRETED, ROUNDING, Case, FreshMemory, definition

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(DEVICE == "cpu" and not INTERPRETED, reason="neither a GPU nor TRITON_INTERPRET=1")
EPS = 1e-5


def case_of(
    charge="decay", v_reset=0.0, detach="reset", surrogate="sigmoid", steps=4, shape=(3, 5, 4, 4), dtype="float32"
):
    return Case(charge, v_reset, detach, surrogate, False, getattr(torch, dtype), steps, shape)


CASES = [
    case_of(shape=(2, 3, 4, 4)),
    case_of("learned decay", -0.25, "nothing", "atan", 1, (2, 3, 7)),
    case_of("learned plain", None, "nothing", "qgate", 7, (2, 5, 3, 3)),
    case_of("if", None, "reset", "atan", 16, (1, 3, 2, 8)),
    case_of("learned decay", 0.0, "reset", "sigmoid", 33, (2, 2, 8)),
    case_of("plain", -0.25, "nothing", "sigmoid", 9, (1, 2, 37)),
    case_of("decay", 0.0, "nothing", "sigmoid", 2, (5, 7, 1), "bfloat16"),
    case_of("decay", 0.0, "reset", "atan", 4, (2, 2, 40), "float16"),
]
STATIC = [
    case_of(shape=(2, 2, 4, 4)),
    case_of("learned decay", None, "nothing", "atan", 9, (2, 3, 3, 7)),
    case_of("if", 0.0, "membrane", "qgate", 16, (3, 2, 5), "bfloat16"),
]
LAST = [
    case_of("learned decay", 0.0, "nothing", "sigmoid", 9, (2, 3, 3, 5)),
    case_of("if", None, "reset", "atan", 4, (3, 34, 1, 2), "float16"),
    case_of("learned plain", -0.25, "reset", "atan", 2, (1, 5, 1, 7)),
]


def make(case: Case):
    rng = torch.Generator().manual_seed(case.steps)
    shape, channels = (case.steps, *case.shape), case.shape[1]
    offset = torch.linspace(-2, 30, channels).view(channels, *[1] * (len(case.shape) - 2))
    x = (torch.randn(shape, generator=rng) + offset).to(DEVICE, case.dtype)
    weight = (torch.rand(channels, generator=rng) + 0.5).to(DEVICE)
    bias = (torch.rand(channels, generator=rng) * 0.5).to(DEVICE)
    return x, torch.randn(shape, generator=rng).to(DEVICE, case.dtype), weight, bias


def pair(case: Case, x, grad, weight, bias, running):
    """Spikes and the gradients of x, weight, bias and decay by batch norm and definition, in float64."""
    node = definition(case)
    leaves = [v.double().detach().requires_grad_() for v in (x, weight, bias)]
    if case.decay is not None:
        node.given = case.decay.double().requires_grad_()
        leaves.append(node.given)
    flat = leaves[0].expand(case.steps, *case.shape).flatten(0, 1)
    mean, var = running or (None, None)
    y = F.batch_norm(flat, mean, var, leaves[1], leaves[2], training=running is None, eps=EPS)
    spikes = node(y.unflatten(0, (case.steps, -1)))
    return spikes.detach(), torch.autograd.grad(spikes, leaves, grad.double())


def check(case: Case, batch: bool, static: bool = False, last: bool = False) -> None:
    x, grad, weight, bias = make(case)
    x = x[:1] if static else x
    if last:
        x, grad = (v.movedim(2, -1).contiguous().movedim(-1, 2) for v in (x, grad))
    mean, var = fused.statistics(x, block=32)
    axes = [i for i in range(x.ndim) if i != 2]
    expected_var, expected_mean = torch.var_mean(x.double(), axes, correction=0)
    torch.testing.assert_close(mean.double(), expected_mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(var.double(), expected_var, rtol=1e-5, atol=1e-7)
    running = None if batch else (expected_mean + 0.1, expected_var * 1.1)
    spikes, grads = pair(case, x, grad, weight, bias, running)
    norm = Norm(weight, bias, *([v.float() for v in running] if running else (None, None)), EPS)
    decay = case.decay
    found, *statistics = fused.forward(x, norm, decay, case.form, case.steps, block=32)
    assert found.dtype == x.dtype and torch.equal(found.double(), spikes)
    assert all(torch.equal(s, v) if batch else not s.numel() for s, v in zip(statistics, (mean, var), strict=True))
    norm = norm._replace(mean=mean, var=var) if batch else norm
    found = fused.backward(grad, x, norm, decay, case.form, batch, block=32)
    assert found[0].dtype == x.dtype and (found[3] is None) == (len(grads) == 3)
    for what, ours, theirs in zip(("x", "weight", "bias", "decay"), found, grads, strict=False):
        scale = theirs.abs().amax().item()
        rounding = ROUNDING[case.dtype] if what == "x" else 1e-5
        message = f"gradient of {what}"
        torch.testing.assert_close(
            ours.double(), theirs, rtol=rounding, atol=2e-5 * (scale + 1), msg=lambda m, w=message: f"{w}: {m}"
        )


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    """New memory is NaN; that which the host code asks for itself also has guards about it."""
    memory = FreshMemory()
    monkeypatch.setattr(fused, "torch", memory)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    memory.check()


def named(case: Case) -> str:
    return "-".join(str(v).replace("torch.", "") for v in case)


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("case", CASES, ids=named)
def test_equals_batch_norm_and_definition(case, batch):
    check(case, batch)


@pytest.mark.parametrize(("batch", "last"), [(True, False), (False, True)])
@pytest.mark.parametrize("case", STATIC, ids=named)
def test_one_step_for_all_of_a_static_image(case, batch, last):
    check(case, batch, static=True, last=last)


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("case", LAST, ids=named)
def test_channels_last(case, batch):
    check(case, batch, last=True)


def test_the_batch_size_is_no_part_of_what_is_compiled():
    settings = [fused.Tiles(torch.zeros(4, b, 6, 7, 7), 4, None).constants for b in (1, 2, 16, 63)]
    assert all(s == settings[0] for s in settings)
