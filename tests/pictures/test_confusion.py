"""The drawn confusion matrix: what stands in its cells, for few classes and for many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from st_utils.pictures import confusion
from st_utils.pictures.confusion import Worst, draw_confusion


@pytest.fixture
def figures(monkeypatch) -> list[Any]:
    """The figures that are drawn, in place of files."""
    drawn: list[Any] = []
    monkeypatch.setattr(confusion, "save", lambda figure, path: drawn.append(figure))
    return drawn


def draw(classes: int, figures: list[Any]) -> tuple[np.ndarray, list[str]]:
    """Draw a matrix of this size; returns it and all texts of the picture."""
    draws = np.random.default_rng(0)
    matrix = np.diag(draws.integers(5, 9, classes))
    matrix[0, 1], matrix[2] = 3, 0
    percent = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    percent[2] = np.nan
    names = [f"class {n}" for n in range(classes)]
    worst = Worst(torch.rand(2, 1, 8, 8), ["class 0", "class 4"], ["class 1", "class 4"], [4.5, 0.25])
    pairs = [(0, 1, 3, float(percent[0, 1]))]
    draw_confusion(None, "title", matrix, percent, names, pairs, worst)
    texts = [text.get_text() for text in figures[-1].findobj(lambda artist: hasattr(artist, "get_text"))]
    return matrix, texts


def test_a_cell_has_its_count_and_its_share(figures):
    matrix, texts = draw(10, figures)
    first = matrix[0, 0]
    assert f"{first}\n{100 * first / (first + 3):.0f} %" in texts
    assert f"3\n{300 / (first + 3):.0f} %" in texts
    assert "no test images" in texts
    assert "class 0\n\u2192 class 1\nloss 4.50" in texts
    assert f"title\n{100 * np.trace(matrix) / matrix.sum():.2f} % of {matrix.sum()} test images right" in texts


def test_many_classes_have_a_list_of_confusions_and_of_the_lowest_accuracies(figures):
    matrix, texts = draw(100, figures)
    assert f"class 0 \u2192 class 1: 3 ({300 / (matrix[0, 0] + 3):.0f} %)" in texts
    assert "the 20 lowest accuracies\nof 99 classes" in texts, "one class has no images"
    assert f"{100 * matrix[0, 0] / (matrix[0, 0] + 3):.1f} %" in texts
