"""Draw loss landscapes: a curve, contours, a surface in three dimensions, and the path of a training.

import numpy as np

x = np.linspace(-1, 1, 21)
draw_curve(Path("curve.png"), "spikformer on digits", x=x, loss=x**2, top1=100 - 50 * x**2)
draw_surface(Path("3d.png"), "spikformer on digits", x=x, y=x, loss=x**2 + x[:, None] ** 2)
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from st_utils.pictures.style import Style, Theme, dress, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Numbers = NDArray[np.float64]
LEVELS = 14  # lines of equal loss
APART = 0.06  # of the path's extent, between two checkpoints that are named
STEEP = 20  # from this ratio of the largest to the smallest loss on, levels and colours are logarithmic


class Path2D(NamedTuple):
    """A training in a plane: coordinates `[N, 2]` of checkpoints, their names `[N]`, the share of variance by axis."""

    points: Numbers
    names: list[str]
    shares: tuple[float, float]

    @property
    def labels(self) -> tuple[str, str]:
        """What the axes are called."""
        ordinal = ("first", "second")
        return tuple(
            f"{name} principal component ({share:.1%} of the variance)"
            for name, share in zip(ordinal, self.shares, strict=True)
        )


def draw_curve(path: Path, title: str, *, x: Numbers, loss: Numbers, top1: Numbers, theme: Theme = "light") -> Path:
    """Draw loss and accuracy (percent) along one direction, `[X]` each; 0 is where the trained weights are."""
    figure = new_figure(7.5, 4.5, title, theme)
    style = figure.style
    left = figure.subplots()
    right = left.twinx()
    left.plot(x, _finite(loss), color=style.series[0])
    right.plot(x, top1, color=style.series[1], linestyle="--")
    left.axvline(0, color=style.faint, linewidth=0.8)
    left.set(xlabel="step along the direction (0: the trained weights)", ylabel="loss", xlim=(x[0], x[-1]))
    right.set(ylabel="accuracy, % (dashed)", ylim=(0, 102))
    dress(left, style, grid="y")
    dress(right, style)
    right.spines["right"].set_visible(True)
    for axes, color in ((left, style.series[0]), (right, style.series[1])):
        axes.yaxis.label.set_color(color)
        axes.tick_params(axis="y", colors=color)
    return save(figure, path)


def draw_contours(
    path: Path,
    title: str,
    *,
    x: Numbers,
    y: Numbers,
    loss: Numbers,
    top1: Numbers,
    trained: Path2D | None = None,
    theme: Theme = "light",
) -> Path:
    """Draw lines of equal loss and of equal accuracy (percent), `[Y, X]` each; a cross is at the trained weights.

    Over `trained`, the path of the training in this plane, only the loss is drawn.
    """
    figure = new_figure(7.5 if trained else 12.5, 5.8, title, theme)
    style = figure.style
    left, *others = np.atleast_1d(figure.subplots(1, 1 if trained else 2))
    _filled(left, x, y, _finite(loss), _levels(loss), "loss", style)
    for right in others:
        _filled(right, x, y, top1, np.linspace(0, 100, 11), "accuracy, %", style)
    for axes in (left, *others):
        labels = trained.labels if trained else ("step along direction 1", "step along direction 2")
        axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
        if trained:
            _path(axes, trained, style)
        _cross(axes, style)
        dress(axes, style)
    return save(figure, path)


def draw_surface(path: Path, title: str, *, x: Numbers, y: Numbers, loss: Numbers, theme: Theme = "light") -> Path:
    """Draw the loss `[Y, X]` as a surface in three dimensions; where it is steep, its logarithm."""
    figure = new_figure(8, 6, title, theme)
    style = figure.style
    axes = figure.add_subplot(projection="3d")
    heights, steep = _finite(loss), _steep(loss)
    heights = np.log10(heights) if steep else heights
    across, along = np.meshgrid(x, y)
    axes.plot_surface(
        across, along, heights, cmap=style.heat, rcount=len(y), ccount=len(x), linewidth=0, antialiased=True
    )
    axes.set(xlabel="direction 1", ylabel="direction 2", zlabel="log10 of the loss" if steep else "loss")
    axes.set_facecolor(style.paper)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.label.set_color(style.ink)
        axis.set_pane_color(style.paper)
        axis.line.set_color(style.faint)
        axis._axinfo["grid"].update(color=style.faint, linewidth=0.6)
    axes.tick_params(colors=style.ink, labelsize=8)
    axes.view_init(elev=30, azim=-58)
    axes.set_box_aspect(None, zoom=1.08)
    return save(figure, path)


def draw_path(path: Path, title: str, *, trained: Path2D, theme: Theme = "light") -> Path:
    """Draw the path of a training in the plane in which its checkpoints vary most."""
    figure = new_figure(7.5, 5.5, title, theme)
    axes = figure.subplots()
    _path(axes, trained, figure.style)
    _cross(axes, figure.style)
    axes.set(xlabel=trained.labels[0], ylabel=trained.labels[1])
    axes.margins(0.12)
    dress(axes, figure.style, grid="both")
    return save(figure, path)


def _path(axes: Axes, trained: Path2D, style: Style) -> None:
    """The checkpoints in their order; names of those that lie apart, the last one's first."""
    axes.plot(*trained.points.T, marker="o", markersize=4, color=style.series[5], linewidth=1.2)
    spans, named = np.ptp(trained.points, axis=0), []
    for name, point in reversed(list(zip(trained.names, trained.points, strict=True))):
        if any(np.abs((point - other) / spans).max() < APART for other in named):
            continue
        named.append(point)
        axes.annotate(
            name,
            point,
            xytext=(5, 5),
            textcoords="offset points",
            fontsize=8,
            color=style.ink,
            bbox={"facecolor": style.paper, "edgecolor": "none", "alpha": 0.7, "pad": 1},
        )


def _cross(axes: Axes, style: Style) -> None:
    """Mark the trained weights, and say so."""
    axes.plot(0, 0, marker="+", markersize=12, markeredgewidth=2, color=style.wrong)
    axes.set_title("+ the trained weights", fontsize=9, loc="right", color=style.ink)


def _filled(axes: Axes, x: Numbers, y: Numbers, values: Numbers, levels: Numbers, name: str, style: Style) -> None:
    """Filled contours, lines over them, a colour bar."""
    from matplotlib.colors import BoundaryNorm

    norm = BoundaryNorm(levels, 256)
    filled = axes.contourf(x, y, values, levels=levels, cmap=style.heat, norm=norm)
    axes.contour(x, y, values, levels=levels, colors=style.paper, linewidths=0.5, alpha=0.6)
    bar = axes.figure.colorbar(filled, ax=axes, label=name, format="%.3g")
    bar.ax.yaxis.label.set_color(style.ink)
    bar.ax.tick_params(colors=style.ink, labelsize=8)
    bar.outline.set_edgecolor(style.faint)


def _finite(loss: Numbers) -> Numbers:
    """The losses, with nan (a gap in the picture) for those that are not finite."""
    return np.where(np.isfinite(loss), loss, math.nan)


def _steep(loss: Numbers) -> bool:
    finite = loss[np.isfinite(loss)]
    return bool(finite.min() > 0 and finite.max() / finite.min() > STEEP)


def _levels(loss: Numbers) -> Any:
    """The levels of contours: round numbers at even distances, or, where the loss is steep, even ratios."""
    from matplotlib.ticker import MaxNLocator

    finite = loss[np.isfinite(loss)]
    low, high = float(finite.min()), float(finite.max())
    if _steep(loss):
        return np.geomspace(low, high, LEVELS)
    if low == high:
        return np.array([low - 0.5, low + 0.5])
    return MaxNLocator(LEVELS).tick_values(low, high)
