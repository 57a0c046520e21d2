"""What the benchmarks of models and of convolutions count and check; how fast anything is, no test says."""

import pytest
import torch
from torch import nn

from benchmarks import convs
from benchmarks.firing import Active, settle
from st_utils.kernels.spike_conv import op as sparse_conv


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
    with Active(model) as active:
        model[0](halves), model[1](quarters)
    assert (active.all, active.part) == (64, (16 + 8) / 64)
    model[0](halves)
    assert active.all == 64  # the hooks are gone


def test_a_convolution_that_differs_is_not_measured(monkeypatch):
    monkeypatch.setattr(sparse_conv, "LEAST", 0)
    monkeypatch.setattr(sparse_conv, "DENSEST", sparse_conv.DENSEST)
    row = convs.layer_at((2, 8, 4, 4), 8, 3, 0.2, rounds=1)
    assert row["forward_speed"] == row["forward_dense_seconds"] / row["forward_additions_seconds"]
    right = sparse_conv.convolve
    monkeypatch.setattr(sparse_conv, "convolve", lambda *args: right(*args) + (sparse_conv.DENSEST[0] > 0))
    with pytest.raises(SystemExit, match="differs from torch's"):
        convs.layer_at((2, 8, 4, 4), 8, 3, 0.2, rounds=1)


def test_the_cost_of_the_finite_check_is_of_the_check_alone():
    """Both trainers make the same steps; the one without it is blind to a weight that is nan."""
    from benchmarks.finite import Unwatched, steps_of, trainer_of
    from st_utils.errors import UserError

    spec = "spikformer(embed_dim=16, depth=1, num_heads=2, mlp_ratio=1.0)"
    one, other = (trainer_of(spec, 8, 4, torch.device("cpu")) for _ in range(2))
    other.watch = Unwatched(other.model)
    for trainer in (one, other):
        steps_of(trainer, 8, 2)()
    assert all(torch.equal(p, q) for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True))
    for trainer in (one, other):
        with torch.no_grad():
            next(trainer.model.parameters()).view(-1)[0] = torch.nan
    steps_of(other, 8, 1)()
    with pytest.raises(UserError, match="is inf or nan"):
        steps_of(one, 8, 1)()
