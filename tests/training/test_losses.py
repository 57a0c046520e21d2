"""Losses by hand, and against the authors' formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from st_utils.errors import UserError
from st_utils.training.losses import TET, CrossEntropy, correct

LOGITS = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0]], [[0.0, math.log(7)], [0.0, 0.0]]], dtype=torch.float64)
LABELS = torch.tensor([1, 0])


def test_cross_entropy_by_hand():
    """softmax(log 3, 0) = (3/4, 1/4)."""
    loss = CrossEntropy()(LOGITS[0], LABELS)
    assert loss.item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2, abs=1e-12)


def test_smoothing_by_hand():
    """q = (0.05, 0.95) for label 1, (0.95, 0.05) for label 0."""
    expected = (math.log(2) - 0.95 * math.log(3 / 4) - 0.05 * math.log(1 / 4)) / 2
    assert CrossEntropy(0.1)(LOGITS[0], LABELS).item() == pytest.approx(expected, abs=1e-12)


def test_soft_labels_by_hand():
    """Mixed labels are taken as they are: smoothing is the mixing's business."""
    shares = torch.tensor([[0.3, 0.7], [1.0, 0.0]], dtype=torch.float64)
    expected = (math.log(2) - math.log(3 / 4)) / 2
    assert CrossEntropy(0.1)(LOGITS[0], shares).item() == pytest.approx(expected, abs=1e-12)


def test_tet_by_hand():
    """Steps: (log 2 - log 3/4) / 2 and (-log 7/8 + log 2) / 2; squared distances to 1: 1 1 (log 3 - 1)^2 1, ..."""
    each = ((math.log(2) - math.log(3 / 4)) / 2 + (-math.log(7 / 8) + math.log(2)) / 2) / 2
    squares = (6 + (math.log(3) - 1) ** 2 + (math.log(7) - 1) ** 2) / 8
    loss = TET(CrossEntropy(), means=1.0, lamb=0.05)(LOGITS, LABELS)
    assert loss.item() == pytest.approx(0.95 * each + 0.05 * squares, abs=1e-12)


@pytest.mark.parametrize("lamb", [0.0, 0.001, 0.3])
@pytest.mark.parametrize("soft", [False, True])
def test_tet_is_the_mean_over_steps_of_the_papers_formula(lamb, soft):
    """arXiv:2202.11946, equations 9 to 11: step by step, with torch's own losses."""
    torch.manual_seed(0)
    logits = torch.randn(4, 8, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.rand(8, 5, dtype=torch.float64).softmax(1) if soft else torch.randint(5, (8,))
    criterion = CrossEntropy(0.1)
    steps = sum(F.cross_entropy(step, labels, label_smoothing=0.0 if soft else 0.1) for step in logits) / 4
    expected = (1 - lamb) * steps + lamb * F.mse_loss(logits, torch.full_like(logits, 0.7))
    found = TET(criterion, means=0.7, lamb=lamb)(logits, labels)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    ours, theirs = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (found, expected))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)


def test_tet_differs_from_the_loss_of_the_mean():
    mean = CrossEntropy()(LOGITS.mean(0), LABELS)
    assert TET(CrossEntropy(), lamb=0.0)(LOGITS, LABELS) > mean + 1e-3  # Jensen


def test_correct_by_hand():
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 1.0, 5.0], [1.0, 0.0, 0.5]])
    assert correct(logits, torch.tensor([0, 1, 1, 2])) == 2
    shares = torch.tensor([[0.6, 0.4, 0.0], [0.7, 0.3, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]])
    assert correct(logits, shares) == 2, "the larger share; either of two equal ones; neither"


def test_the_mean_over_steps_decides_in_tet():
    """Two of three steps say class 0, their mean says class 1."""
    steps = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 9.0]]])
    assert correct(steps, torch.tensor([1])) == 1
    assert correct(steps, torch.tensor([0])) == 0


@pytest.mark.parametrize("build", [lambda: CrossEntropy(1.0), lambda: TET(CrossEntropy(), lamb=1.5)])
def test_values_out_of_range(build):
    with pytest.raises(UserError, match="give 0"):
        build()
