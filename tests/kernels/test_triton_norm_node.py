"""Norm and neuron as one Triton kernel pair against batch norm and the definition, both in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from st_utils.kernels import cuda_norm_node as fused
from tests.kernels.test_triton import DEVICE, INTERPRETED, ROUNDING, Case, definition

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(DEVICE == "cpu" and not INTERPRETED, reason="neither a GPU nor TRITON_INTERPRET=1")
EPS = 1e-5


def case_of(
    charge="decay", v_reset=0.0, detach=True, surrogate="sigmoid", steps=4, shape=(3, 5, 4, 4), dtype="float32"
):
    return Case(charge, v_reset, detach, surrogate, False, getattr(torch, dtype), steps, shape)


CASES = [
    case_of(),
    case_of("learnt decay", -0.25, False, "atan", 1, (2, 3, 7)),
    case_of("learnt plain", None, False, "qgate", 7, (2, 5, 3, 3)),
    case_of("if", None, True, "atan", 16, (2, 3, 2, 8)),
    case_of("learnt decay", 0.0, True, "sigmoid", 33, (2, 2, 16)),
    case_of("plain", -0.25, False, "sigmoid", 9, (1, 3, 37)),
    case_of("decay", 0.0, False, "sigmoid", 2, (5, 7, 1), "bfloat16"),
    case_of("decay", 0.0, True, "atan", 4, (2, 3, 100), "float16"),
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
    node, decay = definition(case)
    leaves = [v.double().detach().requires_grad_() for v in (x, weight, bias)]
    if isinstance(decay, torch.Tensor):
        node.given = decay.detach().double().requires_grad_()
        leaves.append(node.given)
    flat = leaves[0].flatten(0, 1)
    mean, var = running or (None, None)
    y = F.batch_norm(flat, mean, var, leaves[1], leaves[2], training=running is None, eps=EPS)
    spikes = node(y.view_as(x))
    return spikes.detach(), torch.autograd.grad(spikes, leaves, grad.double())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join(str(v).replace("torch.", "") for v in c))
def test_equals_batch_norm_and_definition(case, training, monkeypatch):
    x, grad, weight, bias = make(case)
    mean, var = fused.statistics(x, block=32)
    axes = [i for i in range(x.ndim) if i != 2]
    expected_var, expected_mean = torch.var_mean(x.double(), axes, correction=0)
    torch.testing.assert_close(mean.double(), expected_mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(var.double(), expected_var, rtol=1e-5, atol=1e-7)
    running = None if training else (expected_mean + 0.1, expected_var * 1.1)
    if running:
        mean, var = (v.float() for v in running)
    spikes, grads = pair(case, x, grad, weight, bias, running)
    norm = (mean, (var + EPS).rsqrt(), weight, bias)
    decay = case.decay
    monkeypatch.setattr(torch, "empty_like", lambda v: torch.full_like(v, float("nan")))
    found = fused.forward(x, norm, decay, case.form, block=32)
    assert found.dtype == x.dtype and torch.equal(found.double(), spikes)
    found = fused.backward(grad, x, norm, decay, case.form, training, block=32)
    assert found[0].dtype == x.dtype and (found[3] is None) == (len(grads) == 3)
    for what, ours, theirs in zip(("x", "weight", "bias", "decay"), found, grads, strict=False):
        scale = theirs.abs().amax().item()
        rounding = ROUNDING[case.dtype] if what == "x" else 1e-5
        message = f"gradient of {what}"
        torch.testing.assert_close(
            ours.double(), theirs, rtol=rounding, atol=2e-5 * (scale + 1), msg=lambda m, w=message: f"{w}: {m}"
        )


def test_the_batch_size_is_no_part_of_what_is_compiled():
    settings = [fused._Shape(torch.zeros(4, b, 6, 7, 7), None).settings for b in (1, 2, 16, 63)]
    assert all(s == settings[0] for s in settings)
