"""The drawn embedding: each image is a dot at its place, in the colour of its class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from st_utils.pictures import embedding
from st_utils.pictures.embedding import draw_embedding


@pytest.mark.parametrize("classes", [12, 100])
def test_dots_colours_and_names(monkeypatch, classes):
    drawn: list[Any] = []
    monkeypatch.setattr(embedding, "save", lambda figure, path: drawn.append(figure))
    draws = np.random.default_rng(0)
    labels = np.arange(3 * classes) % classes
    places = draws.normal(size=(3 * classes, 2))
    names = [f"class {n}" for n in range(classes)]
    draw_embedding(None, "title", places, labels, names, extra=np.zeros((1, 2)), extra_names=["mine.png"])
    (axes,) = drawn[0].axes
    *dots, star = axes.collections
    assert len(dots) == classes
    looks = set()
    for label, group in enumerate(dots):
        assert (group.get_offsets() == places[labels == label]).all()
        looks.add((tuple(group.get_facecolor()[0]), str(group.get_paths()[0].vertices.tolist())))
    assert len(looks) == classes, "no two classes look alike"
    assert star.get_offsets().tolist() == [[0, 0]]
    texts = [text.get_text() for text in axes.texts]
    legend = [text.get_text() for legend in drawn[0].legends for text in legend.get_texts()]
    assert "mine.png" in texts
    assert legend == (names if classes == 12 else [])
    assert len(texts) == 1 + (0 if classes == 12 else 30)
