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
