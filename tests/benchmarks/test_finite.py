"""The two trainers that the benchmark compares differ in the check alone."""

from __future__ import annotations

import pytest
import torch


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
