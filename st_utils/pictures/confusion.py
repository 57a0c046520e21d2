"""Draw a confusion matrix, the accuracy of each class, and the images that the model was most wrong about.

draw_confusion(Path("confusion.png"), title="csnn on digits", matrix=matrix, percent=percent, names=names,
               pairs=[(3, 8, 12, 34.3)], worst=Worst(images, ["3"], ["8"], [5.2]))

Up to 20 classes every cell has its number of images. From 51 classes on, a list of the most frequent confusions stands
for the cells that nobody could read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from st_utils.pictures.samples import draw_samples
from st_utils.pictures.style import Style, Theme, dress, new_figure, save, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WITH_PERCENT, WITH_COUNTS, WITH_NAMES = 12, 20, 50  # the largest numbers of classes whose cells and axes have these
LISTED = 20  # bars of a list
SHOWN = 12  # worst images


class Worst(NamedTuple):
    """The images with the largest losses: inputs `[N, ...]`, names of their classes and of those predicted, losses."""

    images: Tensor
    truths: Sequence[str]
    predicted: Sequence[str]
    losses: Sequence[float]


def draw_confusion(
    path: Path,
    title: str,
    matrix: np.ndarray,
    percent: np.ndarray,
    names: Sequence[str],
    pairs: Sequence[tuple[int, int, int, float]],
    worst: Worst,
    theme: Theme = "light",
) -> Path:
    """Draw the picture and write it as a PNG.

    Args:
        matrix: int `[classes, classes]`; `matrix[i, j]` images of class i were called j.
        percent: the same in percent of each row; NaN for a class without images.
        names: of the classes.
        pairs: confusions, the most frequent first: (class, predicted class, images, percent of the class).
    """
    many = len(names) > WITH_NAMES
    top1 = 100 * np.trace(matrix) / matrix.sum()
    figure = new_figure(13, 10, f"{title}\n{top1:.2f} % of {matrix.sum():,} test images right", theme)
    above, below = figure.subfigures(2, 1, height_ratios=(3.6, 1))
    left, *right = above.subplots(1, 3 if many else 2, width_ratios=(2, 1, 1) if many else (1.9, 1))
    _matrix(above, left, matrix, percent, names, figure.style)
    if len(names) <= WITH_COUNTS:
        _accuracy(right[0], percent.diagonal(), names, figure.style)
        right[0].set_title("accuracy of each class")
    else:
        _lowest(right[-1], percent.diagonal(), names, figure.style)
    if many:
        _pairs(right[0], pairs[:LISTED], names, figure.style)
    below.suptitle("largest losses: truth \u2192 prediction", fontsize=10, color=figure.style.ink)
    said = list(zip(worst.truths, worst.predicted, worst.losses, strict=True))[:SHOWN]
    titles = [f"{_arrow(truth, predicted)}\nloss {loss:.2f}" for truth, predicted, loss in said]
    colors = [figure.style.right if truth == predicted else figure.style.wrong for truth, predicted, _ in said]
    draw_samples(below, worst.images[:SHOWN], titles, colors, columns=SHOWN, rows=1)
    return save(figure, path)


def _arrow(truth: str, predicted: str) -> str:
    between = " \u2192 " if len(truth) + len(predicted) <= 8 else "\n\u2192 "
    return f"{shortened(truth, 12)}{between}{shortened(predicted, 12)}"


def _matrix(
    figure: Any, axes: Axes, matrix: np.ndarray, percent: np.ndarray, names: Sequence[str], style: Style
) -> None:
    """The matrix as colours, with as much text as its cells have room for."""
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    colors = LinearSegmentedColormap.from_list("share", [style.paper, style.series[0]])
    # the square root of the share: 1 % has a tenth of the colour and not a hundredth, so that one image is seen
    image = axes.imshow(percent, cmap=colors, norm=PowerNorm(0.5, vmin=0, vmax=100), aspect="equal")
    bar = figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02, ticks=(0, 1, 5, 10, 25, 50, 100))
    bar.set_label("% of the class's images", color=style.ink, fontsize=9)
    bar.ax.tick_params(colors=style.ink, labelsize=8)
    bar.outline.set_visible(False)
    count = len(names)
    if count <= WITH_COUNTS:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            share = f"\n{percent[row, column]:.0f} %" if count <= WITH_PERCENT else ""
            ink = "#ffffff" if percent[row, column] > 30 else style.ink
            size = 8 if count <= WITH_PERCENT else 7
            axes.text(column, row, f"{matrix[row, column]}{share}", ha="center", va="center", fontsize=size, color=ink)
    axes.set(xlabel="predicted class", ylabel="class", title="images of each class, by prediction")
    dress(axes, style)
    if count <= WITH_NAMES:
        short, size = [shortened(name, 14) for name in names], 9 if count <= WITH_COUNTS else 6
        axes.set_xticks(range(count), short, rotation=0 if max(map(len, short)) <= 3 else 90, fontsize=size)
        axes.set_yticks(range(count), short, fontsize=size)
    else:
        axes.set(xlabel="predicted class, by number", ylabel="class, by number")


def _accuracy(axes: Axes, accuracy: np.ndarray, names: Sequence[str], style: Style) -> None:
    """A bar per class, in percent; a class without test images says so."""
    axes.barh(range(len(names)), np.nan_to_num(accuracy), color=style.series[0], height=0.7)
    for row, value in enumerate(accuracy):
        text = "no test images" if np.isnan(value) else f"{value:.1f} %"
        inside = value > 30
        place = {"x": value - 1, "ha": "right", "color": "#ffffff"} if inside else {"x": 1, "ha": "left"}
        place = place if inside or np.isnan(value) else {"x": value + 1, "ha": "left"}
        axes.text(y=row, s=text, va="center", fontsize=8, **{"color": style.ink, **place})
    axes.set_yticks(range(len(names)), [shortened(name, 14) for name in names])
    axes.set(xlim=(0, 100), ylim=(len(names) - 0.5, -0.5), xlabel="%")  # the matrix's rows stand at the same heights
    dress(axes, style, grid="x")


def _lowest(axes: Axes, accuracy: np.ndarray, names: Sequence[str], style: Style) -> None:
    """The classes with the lowest accuracies."""
    tested = np.flatnonzero(~np.isnan(accuracy))
    chosen = tested[np.argsort(accuracy[tested], kind="stable")[:LISTED]]
    _accuracy(axes, accuracy[chosen], [names[i] for i in chosen], style)
    axes.set_title(f"the {len(chosen)} lowest accuracies\nof {len(tested)} classes", fontsize=10)


def _pairs(axes: Axes, pairs: Sequence[tuple[int, int, int, float]], names: Sequence[str], style: Style) -> None:
    """The most frequent confusions as bars of their numbers of images."""
    if not pairs:
        axes.axis("off")
        axes.set_title("no confusions", fontsize=10, color=style.ink)
        return
    counts = [count for _, _, count, _ in pairs]
    axes.barh(range(len(pairs)), counts, color=style.series[5], height=0.45, align="edge")
    for row, (truth, predicted, count, share) in enumerate(pairs):
        text = f"{shortened(names[truth], 13)} \u2192 {shortened(names[predicted], 13)}: {count} ({share:.0f} %)"
        axes.text(0, row - 0.06, text, va="bottom", fontsize=7.5, color=style.ink)
    axes.set(yticks=[], xlabel="images", title="the most frequent\nconfusions", ylim=(-0.6, len(pairs)))
    axes.title.set_fontsize(10)
    axes.invert_yaxis()
    axes.locator_params(axis="x", nbins=4, integer=True)
    dress(axes, style, grid="x")
