"""Pictures of landscapes: what is drawn are the numbers that were given."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image, ImageColor

from st_utils.pictures import landscape
from st_utils.pictures.landscape import Path2D, draw_contours, draw_curve, draw_path, draw_surface
from st_utils.pictures.style import STYLES, save

X, Y = np.linspace(-1, 1, 9), np.linspace(-2, 2, 5)
LOSS = 0.5 + X**2 + Y[:, None] ** 2
TOP1 = 100 - 10 * LOSS
POINTS = np.array([[-0.9, 1.5], [-0.3, 0.4], [-0.29, 0.39], [0.0, 0.0]])
PATH = Path2D(POINTS, [f"epoch {number}" for number in range(4)], (0.8, 0.15))


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved."""
    saved = []

    def spied(figure, path):
        saved.append(figure)
        return save(figure, path)

    monkeypatch.setattr(landscape, "save", spied)
    return saved


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_curve_has_loss_and_accuracy(tmp_path, figures, theme):
    loss = np.where(X > 0.9, math.inf, X**2)
    path = draw_curve(tmp_path / "curve.png", "a model", x=X, loss=loss, top1=TOP1[2], theme=theme)
    left, right = figures[0].axes
    assert left.lines[0].get_ydata().tolist()[:-1] == (X**2).tolist()[:-1] and math.isnan(left.lines[0].get_ydata()[-1])
    assert right.lines[0].get_ydata().tolist() == TOP1[2].tolist()
    assert Image.open(path).convert("RGB").getpixel((2, 2)) == ImageColor.getrgb(STYLES[theme].paper)


def test_contours_of_loss_and_accuracy(tmp_path, figures):
    draw_contours(tmp_path / "contours.png", "a model", x=X, y=Y, loss=LOSS, top1=TOP1)
    loss, accuracy = figures[0].axes[:2]
    assert loss.get_xlim() == (-1, 1) and loss.get_ylim() == (-2, 2)
    for axes, lowest, highest in ((loss, LOSS.min(), LOSS.max()), (accuracy, TOP1.min(), TOP1.max())):
        filled, lines = axes.collections[:2]
        assert filled.levels[0] <= lowest and filled.levels[-1] >= highest, "no part of the surface is left white"
        level = next(number for number, value in enumerate(lines.levels) if lowest < value < highest)
        for x, y in lines.get_paths()[level].vertices:  # where the line crosses a line of the grid
            at = np.array([np.interp(x, X, row) for row in (LOSS if axes is loss else TOP1)])
            assert np.interp(y, Y, at) == pytest.approx(lines.levels[level], abs=1e-9)


def test_a_trajectory_over_its_plane_says_the_shares_of_variance(tmp_path, figures):
    draw_contours(tmp_path / "over.png", "a model", x=X, y=Y, loss=LOSS, top1=TOP1, trained=PATH)
    draw_path(tmp_path / "path.png", "a model", trained=PATH)
    for figure in figures:
        axes = figure.axes[0]
        assert axes.get_xlabel() == "first principal component (80.0% of the variance)"
        assert axes.get_ylabel() == "second principal component (15.0% of the variance)"
        assert axes.lines[0].get_xydata().tolist() == PATH.points.tolist()
        assert {text.get_text() for text in axes.texts} == {"epoch 0", "epoch 2", "epoch 3"}, "1 lies under 2"
    assert len(figures[0].axes) == 2, "one picture and its colour bar"


def test_the_surface_is_logarithmic_where_it_is_steep(tmp_path, figures):
    steep = np.where(LOSS.max() == LOSS, math.nan, 100 * LOSS - 49)
    for loss in (LOSS, steep):
        draw_surface(tmp_path / "surface.png", "a model", x=X, y=Y, loss=loss)
    plain, logarithmic = (figure.axes[0] for figure in figures)
    assert plain.get_zlabel() == "loss" and plain.get_zlim()[0] <= 0.5 and plain.get_zlim()[1] >= 5.5
    assert logarithmic.get_zlabel() == "log10 of the loss" and logarithmic.get_zlim()[1] < 3


GAPS = np.where(LOSS > 5, math.inf, np.where(LOSS < 0.6, math.nan, LOSS))


@pytest.mark.parametrize("loss", [np.ones_like(LOSS), GAPS])
def test_flat_losses_and_losses_with_gaps_are_drawn(tmp_path, loss):
    for path in (
        draw_contours(tmp_path / "contours.png", "a model", x=X, y=Y, loss=loss, top1=TOP1),
        draw_surface(tmp_path / "surface.png", "a model", x=X, y=Y, loss=loss),
    ):
        assert Image.open(path).width > 500
