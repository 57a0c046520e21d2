"""Chance level by hand and against exact binomial sums, and what it does to a table's rows."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from scipy import stats

from benchmarks.leaderboard.chance import SIGNIFICANCE, Score, above_chance, finite_or_none, score_of


def tail(right: int, images: int, chance: Fraction) -> Fraction:
    """P(Binomial(images, chance) >= right), exactly."""
    return sum(
        math.comb(images, k) * chance**k * (1 - chance) ** (images - k) for k in range(right, images + 1)
    )  # fmt: skip


def test_a_coin_by_hand():
    """Of ten coins, 9 or 10 right: 11/1024, which is above 1 %; 10 right: 1/1024."""
    assert tail(9, 10, Fraction(1, 2)) == Fraction(11, 1024)
    assert not above_chance([Score(9, 10, 0.5)])
    assert above_chance([Score(10, 10, 0.5)])


def test_seeds_are_one_test_of_all_their_images():
    """8 and 9 of ten are each within guessing, and together, 17 of twenty, not: 1351/2^20."""
    one, other = Score(8, 10, 0.5), Score(9, 10, 0.5)
    assert not above_chance([one])
    assert not above_chance([other])
    assert tail(17, 20, Fraction(1, 2)) == Fraction(1351, 2**20)
    assert above_chance([one, other])


@pytest.mark.parametrize(("images", "chance"), [(20, Fraction(1, 10)), (359, Fraction(37, 359)), (53, Fraction(6, 53))])
def test_the_bound_is_the_exact_one(images, chance):
    """The least number that is above chance, by exact fractions and by scipy's test of proportions."""
    least = next(k for k in range(images + 1) if tail(k, images, chance) < Fraction(1, 100))
    for right in range(images + 1):
        assert above_chance([Score(right, images, float(chance))]) == (right >= least)
    for right in (least - 1, least):
        p = stats.binomtest(right, images, float(chance), alternative="greater").pvalue
        assert (p < SIGNIFICANCE) == (right >= least)


def test_always_the_most_frequent_class_is_chance_however_many_seeds():
    """A collapsed network scores that class's share in each seed, to the image."""
    assert not above_chance([Score(37, 359, 37 / 359)] * 50)


@pytest.mark.parametrize("images", [10_000, 50_000])
def test_published_sizes(images):
    """Of ten classes: mean 10 %, and 2.33 standard deviations above it, by the normal limit."""
    deviation = math.sqrt(images * 0.1 * 0.9)
    assert not above_chance([Score(round(images / 10 + 2.2 * deviation), images, 0.1)])
    assert above_chance([Score(round(images / 10 + 2.5 * deviation), images, 0.1)])


def test_counts_come_back_from_percent():
    for images in (1, 3, 359, 10_000, 50_000):
        for right in {0, 1, images // 3, images - 1, images}:
            summary = {"top1": 100 * right / images, "test_images": images, "chance": 10.0}
            assert score_of(summary) == Score(right, images, 0.1)


@pytest.mark.parametrize("summary", [{}, {"top1": None, "test_images": 9, "chance": 1.0}, {"top1": 50.0},
                                     {"top1": math.nan, "test_images": 9, "chance": 1.0}])  # fmt: skip
def test_without_figures_nothing_is_judged(summary):
    assert score_of(summary) is None


def test_finite():
    assert [finite_or_none(v) for v in (1, 0.0, math.nan, math.inf, None, True, "1")] == [1, 0.0, *[None] * 5]
