"""Batches shared among processes and micro-batches: each sample once, as it would be in the whole batch."""

import numpy as np
import pytest

from st_utils.data import Augment, Share

STRONG = Augment(auto_augment="rand-m9-n2-mstd0.5-inc1", hflip=0.5, crop_padding=2, re_prob=0.5)


@pytest.mark.parametrize("count", [0, 1, 5, 12, 13])
@pytest.mark.parametrize(("world", "parts"), [(1, 1), (2, 1), (1, 3), (3, 2)])
def test_shares_are_a_partition(count, world, parts):
    shares = [share for rank in range(world) for share in Share(rank, world, parts).positions(count)]
    assert len(shares) == world * parts
    assert sorted(np.concatenate(shares).tolist()) == list(range(count))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_what_mixing_pairs_stays_together():
    """timm mixes sample i of n with n - 1 - i, in the whole batch and so in every even share."""
    for share in (s for rank in range(2) for s in Share(rank, 2, 3).positions(24)):
        assert (share + share[::-1] == 23).all()
