"""Which classes a model takes for which: the confusion matrix, accuracy per class, and the worst images.

found = confusion(Predictions(labels=labels, predicted=predicted, losses=losses, indices=indices), num_classes=10)
found.matrix[3, 8]                       # the number of images of class 3 that the model calls 8
found.accuracy()[3]                      # percent of the images of class 3 that the model calls 3
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np


class Predictions(NamedTuple):
    """What a model said of each of N images.

    Attributes:
        labels, predicted: class numbers, int64 `[N]`.
        losses: cross-entropy of each image, float64 `[N]`.
        indices: the images' places in their data set, int64 `[N]`.
    """

    labels: np.ndarray
    predicted: np.ndarray
    losses: np.ndarray
    indices: np.ndarray

    @classmethod
    def joined(cls, shares: Iterable[Predictions]) -> Predictions:
        """Several processes' shares as one, in the order of the images."""
        columns = [np.concatenate(column) for column in zip(*shares, strict=True)]
        order = np.argsort(columns[-1], kind="stable")
        return cls(*(column[order] for column in columns))


class Pair(NamedTuple):
    """Images of class `truth` that were taken for `predicted`: their count and their percentage of `truth`'s images."""

    truth: int
    predicted: int
    count: int
    percent: float


@dataclass(frozen=True, eq=False)
class Confusion:
    """The confusion matrix of some predictions.

    Attributes:
        matrix: int64 `[classes, classes]`; `matrix[i, j]` images of class i were called j.
        predictions: what it was counted from.
    """

    matrix: np.ndarray
    predictions: Predictions

    @property
    def top1(self) -> float:
        """Accuracy over all images, in percent."""
        return 100 * float(np.trace(self.matrix)) / int(self.matrix.sum())

    def percent(self) -> np.ndarray:
        """Each row in percent of its class's images, float64 `[classes, classes]`; NaN for a class without images."""
        totals = self.matrix.sum(1, keepdims=True)
        return np.divide(100.0 * self.matrix, totals, out=np.full(self.matrix.shape, np.nan), where=totals > 0)

    def accuracy(self) -> np.ndarray:
        """The percentage of each class's images that were called by its name, `[classes]`; NaN without images."""
        return self.percent().diagonal()

    def pairs(self, count: int) -> list[Pair]:
        """The `count` most frequent confusions of a class with another one, fewer where there are fewer."""
        wrong = self.matrix - np.diag(self.matrix.diagonal())
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        rows, columns = np.unravel_index(order, wrong.shape)
        share = self.percent()
        found = (Pair(int(i), int(j), int(wrong[i, j]), float(share[i, j])) for i, j in zip(rows, columns, strict=True))
        return [pair for pair in found if pair.count]

    def worst(self, count: int) -> np.ndarray:
        """The places in `predictions` of the `count` images with the largest losses, the largest first."""
        return np.argsort(-self.predictions.losses, kind="stable")[:count]

    def plain(self, names: Sequence[str], worst: int = 24, pairs: int = 50) -> dict[str, Any]:
        """Plain values for JSON; `index` is an image's place in the test set."""
        said = self.predictions
        return {
            "classes": list(names),
            "images": int(self.matrix.sum()),
            "top1": self.top1,
            "accuracy": [None if np.isnan(value) else float(value) for value in self.accuracy()],
            "confusions": [
                {**pair._asdict(), "truth": names[pair.truth], "predicted": names[pair.predicted]}
                for pair in self.pairs(pairs)
            ],
            "worst": [
                {
                    "index": int(said.indices[place]),
                    "truth": names[said.labels[place]],
                    "predicted": names[said.predicted[place]],
                    "loss": float(said.losses[place]),
                }
                for place in self.worst(worst)
            ],
            "matrix": self.matrix.tolist(),
        }


def confusion(predictions: Predictions, num_classes: int) -> Confusion:
    """Count the confusion matrix of some predictions."""
    places = predictions.labels * num_classes + predictions.predicted
    matrix = np.bincount(places, minlength=num_classes**2).reshape(num_classes, num_classes)
    return Confusion(matrix, predictions)
