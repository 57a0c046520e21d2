"""Seeds for Python's, numpy's and torch's random generators, from a tuple of whole numbers.

with seeded((seed, epoch)):          # the generators start from (seed, epoch) here
noise = torch.rand(3)            # the same three numbers in every process
# after the block the generators have the states that they had before it
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(entropy: tuple[int, ...]) -> Iterator[None]:
    """Seed Python's, numpy's and torch's CPU generators by `entropy` inside the block; restore them after it."""
    saved = random.getstate(), np.random.get_state(), torch.get_rng_state()
    reseed(entropy)
    try:
        yield
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])
        torch.set_rng_state(saved[2])


def reseed(entropy: tuple[int, ...], seed_torch: Callable[[int], object] = torch.default_generator.manual_seed) -> None:
    """Seed Python's, numpy's and torch's generators by `entropy`, whole numbers from 0 up.

    The default `seed_torch` seeds torch's CPU generator alone; `torch.manual_seed` seeds the GPUs' generators too.
    """
    python, numpy, pytorch = np.random.SeedSequence(entropy).generate_state(3).tolist()
    random.seed(python)
    np.random.seed(numpy)
    seed_torch(pytorch)
