"""The integer-firing neuron: values by hand, its two roundings and windows, its memory."""

from __future__ import annotations

import pytest
import torch

from registry import create
from st_utils.errors import UserError

X = [-1.0, 0.0, 0.4, 0.5, 1.5, 2.5, 2.6, 3.9, 4.0, 7.0]


def fire(spec: str) -> tuple[list[float], list[float]]:
    """Output and gradient of the sum at X, one step."""
    x = torch.tensor([X], dtype=torch.float64, requires_grad=True)
    out = create("node", spec)(x)
    out.sum().backward()
    return out.flatten().tolist(), x.grad.flatten().tolist()


def test_base_form():
    out, grad = fire("ilif")
    assert out == [n / 4 for n in (0, 0, 0, 0, 2, 2, 3, 4, 4, 4)]
    assert grad == [0, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0]


def test_large_form():
    out, grad = fire("ilif(rounding=half_up, strict_window=true)")
    assert out == [n / 4 for n in (0, 0, 0, 1, 2, 3, 3, 4, 4, 4)]
    assert grad == [0, 0, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 0, 0]


def test_before_the_head_and_with_another_maximum():
    out, grad = fire("ilif(max_spikes=2, normalize=false)")
    assert out == [0, 0, 0, 0, 2, 2, 2, 2, 2, 2]
    assert grad == [0, 1, 1, 1, 1, 0, 0, 0, 0, 0]


def test_without_decay_no_step_sees_another():
    x = torch.rand(3, 2, 5) * 5
    node = create("node", "ilif")
    assert torch.equal(node(x), torch.cat([node(x[t : t + 1]) for t in range(3)]))


def test_decay_keeps_what_did_not_fire():
    """U = 1.4, then 1.4 + 0.5 * 0.4 = 1.6, then 1.4 + 0.5 * (1.6 - 2) = 1.2."""
    x = torch.full((3, 1), 1.4, dtype=torch.float64, requires_grad=True)
    spikes = create("node", "ilif(decay=0.5, normalize=false)")(x)
    assert spikes.flatten().tolist() == [1, 2, 1]
    spikes.sum().backward()
    assert x.grad.flatten().tolist() == [1.75, 1.5, 1]


def test_half_precision_is_computed_in_float32():
    out = create("node", "ilif")(torch.tensor([[2.5, 3.5]], dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16
    assert out.flatten().tolist() == [0.5, 1]


@pytest.mark.parametrize("spec", ["ilif(max_spikes=0)", "ilif(decay=1.5)", "ilif(decay=-0.1)"])
def test_mistakes(spec):
    with pytest.raises(UserError, match="must be"):
        create("node", spec)
