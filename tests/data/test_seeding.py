"""Seeds of the random generators."""

from __future__ import annotations

import random

import pytest
import torch

from st_utils.data.seeding import seeded


def test_seeded_puts_the_generators_back_after_an_error():
    before = random.getstate(), torch.get_rng_state()
    with pytest.raises(RuntimeError), seeded((1, 2, 3)):
        random.random()
        torch.rand(3)
        raise RuntimeError
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])
