"""Batches shared among processes and micro-batches: each sample once, as it would be in the whole batch."""

import numpy as np
import pytest
import torch

from st_utils.data import Augment, Share, build_loaders

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


@pytest.mark.parametrize("augment", [STRONG, Augment(re_prob=0.5)], ids=["strong", "erase"])
def test_a_sample_is_augmented_alike_in_every_share(small, augment):
    whole, _ = build_loaders(small, 16, 8, augment=augment, seed=7)
    whole.set_epoch(3)
    batches = list(whole)
    for rank in range(2):
        share = Share(rank, 2, 2)
        train, test = build_loaders(small, 16, 8, augment=augment, seed=7, share=share)
        train.set_epoch(3)
        assert len(train) == len(whole)
        places = np.concatenate(share.positions(8))
        for (images, labels), (mine, my_labels) in zip(batches, train, strict=True):
            assert torch.equal(mine, images[places])
            assert torch.equal(my_labels, labels[places])
        train.set_epoch(3, start=2)
        (first, _), *rest = list(train)
        assert torch.equal(first, batches[2][0][places])
        assert len(rest) == len(whole) - 3
        assert [len(labels) for _, labels in test] == [4, 1]  # of 8 and of 2


def test_testing_with_more_processes_than_images(small):
    found = []
    for rank in range(4):
        _, test = build_loaders(small, 16, 8, share=Share(rank, 4))
        batches = [labels for _, labels in test]
        assert [len(labels) for labels in batches] == ([2, 1] if rank < 2 else [2, 0])
        found += torch.cat(batches).tolist()
    assert sorted(found) == sorted(small.test.targets.tolist())
