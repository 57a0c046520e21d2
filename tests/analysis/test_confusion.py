"""The confusion matrix, against scikit-learn's, and what is read off it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, recall_score

from st_utils.analysis.confusion import Predictions, confusion


@pytest.fixture(scope="module")
def said() -> Predictions:
    """500 predictions of 12 classes, 60 % right; no image is of class 5, none is called 7."""
    draws = np.random.default_rng(0)
    labels = draws.choice([c for c in range(12) if c != 5], 500)
    predicted = np.where(draws.random(500) < 0.6, labels, draws.integers(0, 12, 500))
    predicted[predicted == 7] = 8
    return Predictions(labels, predicted, draws.random(500), draws.permutation(500))


def test_the_matrix_is_that_of_scikit_learn(said):
    found = confusion(said, 12)
    expected = confusion_matrix(said.labels, said.predicted, labels=range(12))
    assert (found.matrix == expected).all()
    assert found.matrix.dtype == np.int64
    kept = [c for c in range(12) if c != 5]
    rows = confusion_matrix(said.labels, said.predicted, labels=range(12), normalize="true")
    assert found.percent()[kept] == pytest.approx(100 * rows[kept])
    assert np.isnan(found.percent()[5]).all()
    recall = recall_score(said.labels, said.predicted, labels=kept, average=None)
    assert found.accuracy()[kept] == pytest.approx(100 * recall)
    assert found.top1 == pytest.approx(100 * np.mean(said.labels == said.predicted))


def test_the_most_frequent_confusions_and_the_worst_images(said):
    found = confusion(said, 12)
    pairs = found.pairs(200)
    assert sum(pair.count for pair in pairs) == (said.labels != said.predicted).sum()
    assert [pair.count for pair in pairs] == sorted((pair.count for pair in pairs), reverse=True)
    assert all(pair.truth != pair.predicted for pair in pairs)
    first = pairs[0]
    taken = (said.labels == first.truth) & (said.predicted == first.predicted)
    assert first.count == taken.sum()
    assert first.percent == pytest.approx(100 * taken.sum() / (said.labels == first.truth).sum())
    worst = found.worst(5)
    assert said.losses[worst].tolist() == sorted(said.losses, reverse=True)[:5]


def test_the_json_has_names_and_no_nan(said):
    names = [f"class {c}" for c in range(12)]
    plain = json.loads(json.dumps(confusion(said, 12).plain(names, worst=2), allow_nan=False))
    assert plain["accuracy"][5] is None
    assert plain["accuracy"].count(None) == 1
    assert plain["matrix"] == confusion_matrix(said.labels, said.predicted, labels=range(12)).tolist()
    place = int(np.argmax(said.losses))
    assert plain["worst"][0] == {
        "index": said.indices[place],
        "truth": names[said.labels[place]],
        "predicted": names[said.predicted[place]],
        "loss": said.losses[place],
    }


def test_shares_are_joined_in_the_order_of_the_images(said):
    shares = [Predictions(*(column[part::3] for column in said)) for part in range(3)]
    joined = Predictions.joined(shares)
    assert joined.indices.tolist() == list(range(500))
    order = np.argsort(said.indices)
    for found, column in zip(joined, said, strict=True):
        assert (found == column[order]).all()
    empty = Predictions(*(column[:0] for column in said))
    assert len(Predictions.joined([said, empty]).labels) == 500, "a process may have had no image"
