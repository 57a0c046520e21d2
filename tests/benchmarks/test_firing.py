"""The statistics that `settle` gives a model, and the multiplications that `ActiveProducts` counts."""

import torch
from torch import nn

from benchmarks.firing import ActiveProducts, settle


def test_settled_norms_have_the_statistics_of_the_batch():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    images = torch.rand(5, 3, 8, 8)
    seen = model[0](images)
    settle(model, images)
    torch.testing.assert_close(model[1].running_mean, seen.mean((0, 2, 3)))
    torch.testing.assert_close(model[1].running_var, seen.var((0, 2, 3)))
    assert model[1].momentum == 0.1


def test_active_multiplications_by_hand():
    """1/2 of the input of 2 x 16 multiplications, 1/4 of that of 4 x 8."""
    model = nn.Sequential(nn.Linear(16, 2, bias=False), nn.Linear(8, 4, bias=False))
    halves, quarters = torch.tensor([0.0, 1.0]).repeat(8), torch.tensor([0.0, 0.0, 0.0, 3.0]).repeat(2)
    with ActiveProducts(model) as active:
        model[0](halves), model[1](quarters)
    assert (active.all, active.share) == (64, (16 + 8) / 64)
    model[0](halves)
    assert active.all == 64  # the hooks are gone
