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
    with random_state_kept():
        reseed(entropy)
        yield


@contextmanager
def random_state_kept(gpus: bool = False) -> Iterator[None]:
    """Restore the states of Python's, numpy's and torch's CPU generators after the block, of all GPUs' with `gpus`."""
    saved = random.getstate(), np.random.get_state(), torch.get_rng_state()
    on_gpus = torch.cuda.get_rng_state_all() if gpus and torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])
        torch.set_rng_state(saved[2])
        if on_gpus:
            torch.cuda.set_rng_state_all(on_gpus)


def reseed(entropy: tuple[int, ...], seed_torch: Callable[[int], object] = torch.default_generator.manual_seed) -> None:
    """Seed Python's, numpy's and torch's generators by `entropy`, whole numbers from 0 up.

    The default `seed_torch` seeds torch's CPU generator alone; `torch.manual_seed` seeds the GPUs' generators too.
    """
    python, numpy, pytorch = np.random.SeedSequence(entropy).generate_state(3).tolist()
    random.seed(python)
    np.random.seed(numpy)
    seed_torch(pytorch)
