"""Firing rates, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from registry import create
from st_utils.analysis.firing import FiringRates


class TwoNodes(nn.Module):
    """Two layers of neurons that fire where their input is above 0, of 3 and of 1 neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = (create("node", "if(threshold=1.0)", step=2) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # [T, B, 3]
        return self.narrow(2 * self.wide(x)[..., :1])


def test_rates_by_hand():
    """T = 2, B = 1: of 3 neurons the first fires in both steps, the second in one; the one behind the first in both."""
    model = TwoNodes()
    x = torch.tensor([[[2.0, 2.0, 0.0]], [[2.0, 0.0, 0.0]]])
    rates = FiringRates(model)
    assert rates.mean() is None
    with rates.counting():
        model(x)
    model(x)  # outside the block nothing counts
    assert rates.by_layer() == pytest.approx({"wide": 3 / 6, "narrow": 2 / 2})
    assert rates.mean() == pytest.approx(5 / 8)
    rates.add_other_processes(lambda numbers: [3 * number for number in numbers])  # two others that saw the same
    assert rates.by_layer() == pytest.approx({"wide": 3 / 6, "narrow": 2 / 2})
    assert rates.sites == {"wide": 18, "narrow": 6}
    assert FiringRates(nn.Linear(2, 2)).mean() is None


class OneByOne(TwoNodes):
    """The same, a time step at a time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([super(OneByOne, self).forward(step[None]) for step in x])


class TwiceUsed(TwoNodes):
    """One node in two places."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.narrow(2 * self.wide(2 * self.wide(x))[..., :1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [TwoNodes, OneByOne])
def test_rates_by_step_by_hand(kind, dtype):
    """Of 3 neurons 2 fire in the first step and 1 in the second; a second sample, of zeros, halves all of it."""
    model = kind()
    x = torch.tensor([[[2.0, 2.0, 0.0]], [[2.0, 0.0, 0.0]]], dtype=dtype)
    rates = FiringRates(model, steps=2)
    with rates.counting():
        model(x)
    assert rates.by_step() == {"wide": [2 / 3, 1 / 3], "narrow": [1.0, 1.0]}
    with rates.counting():
        model(torch.zeros_like(x))
    assert rates.by_step() == {"wide": [2 / 6, 1 / 6], "narrow": [0.5, 0.5]}
    assert {name: sum(spikes).item() for name, spikes in rates.step_spikes.items()} == {
        name: spikes.item() for name, spikes in rates.spikes.items()
    }
    assert not model._forward_pre_hooks


def test_steps_that_cannot_be_told_apart_are_not_told():
    rates = FiringRates(TwiceUsed(), steps=2)
    with rates.counting():
        rates.model(torch.ones(2, 1, 3))
    assert rates.by_step()["wide"] is None
    assert rates.by_step()["narrow"] == [1.0, 1.0]
    assert rates.by_layer()["wide"] == 1.0
