"""EventMix by hand, and timm's cutmix on frames."""

from __future__ import annotations

import pytest
import torch
from timm.data.mixup import Mixup

from st_utils.data.events.mix import BatchMix, event_mix, gaussian_mask
from st_utils.data.seeding import seeded
from st_utils.errors import UserError


def test_event_mix_by_hand():
    """Two samples of 4 pixels and one step; the mask takes the partner's events in the right column."""
    x = torch.tensor([[[[[6.0, 2.0], [0.0, 0.0]]]], [[[[1.0, 3.0], [0.0, 4.0]]]]])  # [2, 1, 1, 2, 2]
    mask = torch.tensor([[[False, True], [False, True]]])
    mixed, targets = event_mix(x, torch.tensor([0, 1]), mask, classes=2)
    assert mixed.flatten(1).tolist() == [[6, 3, 0, 4], [1, 2, 0, 0]]
    # kept 6/8 of the first and taken 7/8 of the second; kept 1/8 of the second and taken 2/8 of the first
    assert targets[0].tolist() == pytest.approx([6 / 13, 7 / 13]) and targets[1].tolist() == pytest.approx(
        [2 / 3, 1 / 3]
    )


def test_event_mix_smooths_labels_and_falls_back_to_the_area():
    mask = torch.tensor([[[True, False, False, False]]])
    _, targets = event_mix(torch.zeros(2, 1, 2, 1, 4), torch.tensor([0, 2]), mask, classes=4, smoothing=0.4)
    assert targets[0].tolist() == pytest.approx([0.75 * 0.7 + 0.25 * 0.1, 0.1, 0.25 * 0.7 + 0.75 * 0.1, 0.1])
    assert targets.sum(1).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_gaussian_mask_has_the_share(share):
    with seeded((3,)):
        mask = gaussian_mask((4, 8, 8), share)
    assert mask.shape == (4, 8, 8) and mask.mean() == pytest.approx(share, abs=1 / 256)


def test_cutmix_of_frames_has_one_box_for_all_steps_and_the_area_as_weight():
    mix = BatchMix(Mixup(cutmix_alpha=1.0, mixup_alpha=0.0, label_smoothing=0.0, num_classes=2), 0.0, 1.0, 0.5, 0.0, 2)
    x = torch.stack([torch.zeros(3, 2, 8, 8), torch.ones(3, 2, 8, 8)])
    for seed in range(5):
        with seeded((seed,)):
            mixed, targets = mix(x.clone(), torch.tensor([0, 1]))
        box = mixed[0, 0, 0]
        assert (mixed[0] == box).all() and (mixed[1] == 1 - box).all()
        assert targets[0, 1].item() == pytest.approx(box.mean().item())
    images, _ = mix(torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))
    assert images.shape == (2, 3, 8, 8)


def test_event_mix_alone_and_beside_mixup():
    x, labels = torch.rand(4, 3, 2, 8, 8), torch.tensor([0, 1, 2, 3])
    with seeded((5,)):
        alone = BatchMix(None, 1.0, 1.0, 0.5, 0.0, 4)(x.clone(), labels)
        assert (
            not torch.equal(alone[0], x)
            and torch.isin(alone[0], x).all()
            and torch.allclose(alone[1].sum(1), torch.ones(4))
        )
        kept, targets = BatchMix(None, 1.0, 0.0, 0.5, 0.1, 4)(x.clone(), labels)
        assert torch.equal(kept, x) and targets[0].tolist() == pytest.approx([0.925, 0.025, 0.025, 0.025])
        mixup = Mixup(mixup_alpha=1.0, num_classes=4)
        both = BatchMix(mixup, 1.0, 1.0, 0.5, 0.0, 4)
        of_events = sum(bool(torch.isin(both(x.clone(), labels)[0], x).all()) for _ in range(40))
        assert 8 < of_events < 32
    with pytest.raises(UserError, match="event_mix is for event frames"):
        BatchMix(None, 1.0, 1.0, 0.5, 0.0, 4)(torch.rand(4, 3, 8, 8), labels)
    with pytest.raises(UserError, match="event_mix is -1"):
        BatchMix(None, -1, 1.0, 0.5, 0.0, 4)
