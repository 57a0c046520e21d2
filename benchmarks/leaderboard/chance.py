"""Whether an accuracy is above what guessing gives.

    above_chance([Score(right=43, images=359, chance=37 / 359)])  # False: 12.0 % where guessing gives 10.3 %
    above_chance([Score(right=60, images=359, chance=37 / 359)])  # True

Guessing gives the share of the most frequent class among the test images, which is never below 1 / classes. Right
guesses are binomial, so an accuracy is above chance where P(Binomial(N, p) >= right) < 1 %. The N images are those of
all seeds together: each seed draws its own weights. Where seeds were tested on different images, p is the mean over
images, which bounds the tail of the sum (Hoeffding 1956, Annals of Mathematical Statistics 27, 713).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from scipy import stats

SIGNIFICANCE = 0.01


class Score(NamedTuple):
    """How many of the test images a run classified right; `chance` is the share that guessing gets right, 0 to 1."""

    right: int
    images: int
    chance: float


def score_of(summary: dict[str, Any]) -> Score | None:
    """The counts of a run's last test, from its summary; None where it has no accuracy or tells no counts."""
    top1, images, chance = (finite(summary.get(name)) for name in ("top1", "test_images", "chance"))
    if top1 is None or not images or chance is None:
        return None
    return Score(round(top1 * images / 100), int(images), chance / 100)


def above_chance(found: Sequence[Score]) -> bool:
    """Whether the tests of a model, one for each seed, got significantly more right than guessing does."""
    right, images = sum(each.right for each in found), sum(each.images for each in found)
    chance = sum(each.images * each.chance for each in found) / images
    return bool(stats.binom.sf(right - 1, images, chance) < SIGNIFICANCE)


def finite(value: Any) -> float | None:
    """The number, or None where it is missing, not finite, or none."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if good else None
