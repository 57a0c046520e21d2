"""Is an accuracy above that of guessing?

    above_chance([Score(right=43, images=359, chance=37 / 359)])  # False: 12.0 % where guessing gives 10.3 %
    above_chance([Score(right=60, images=359, chance=37 / 359)])  # True

A row learned if P(X >= right) < 1 % for X ~ Binomial(N, p). N is the number of test images of all seeds together,
because each seed draws weights of its own; `right` is how many of them were classified right. p, the accuracy of
guessing, is the share of the most frequent class among the test images; it is at least 1 / classes. If seeds were
tested on different images, p is the mean over images, which bounds the tail of the sum (Hoeffding 1956, Annals of
Mathematical Statistics 27, 713).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from scipy import stats

SIGNIFICANCE = 0.01


class Score(NamedTuple):
    """A run's test: how many of `images` it classified `right`, and p, the share that guessing gets right, 0 to 1."""

    right: int
    images: int
    chance: float


def score_of(summary: dict[str, Any]) -> Score | None:
    """The `Score` of a run's last test, from its summary; None where the accuracy or the counts are missing."""
    top1, images, chance = (finite_or_none(summary.get(name)) for name in ("top1", "test_images", "chance"))
    if top1 is None or not images or chance is None:
        return None
    return Score(round(top1 * images / 100), int(images), chance / 100)


def above_chance(scores: Sequence[Score]) -> bool:
    """Whether a model's tests, one per seed, got significantly more images right than guessing (1 %, see above)."""
    right, images = sum(each.right for each in scores), sum(each.images for each in scores)
    chance = sum(each.images * each.chance for each in scores) / images
    return bool(stats.binom.sf(right - 1, images, chance) < SIGNIFICANCE)


def finite_or_none(value: Any) -> float | None:
    """The value if it is a finite number, else None."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if good else None
