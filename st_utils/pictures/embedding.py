"""Draw features in two dimensions, coloured by class.

draw_embedding(Path("embedding.png"), "t-SNE of the features", places, labels, names)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from st_utils.pictures.style import Theme, dress, new_figure, save, shortened

MARKERS = "osD^v"  # with the eight colours of a style, 40 classes differ
NAMED = 30  # of more classes, evenly chosen, the names are written
HALO = 3  # points around a text, in the colour of the paper


def draw_embedding(
    path: Path,
    title: str,
    places: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    extra: np.ndarray | None = None,
    extra_names: Sequence[str] = (),
    theme: Theme = "light",
) -> Path:
    """Draw a dot per image and write the picture as a PNG.

    Up to 40 classes have a legend. Of more, each has a hue, and the names of 30 stand above the medians of their dots.

    Args:
        places: `[N, 2]`.
        labels: class numbers `[N]`.
        names: of the classes.
        extra, extra_names: places `[M, 2]` of further inputs, drawn as stars with their names.
    """
    from matplotlib import colormaps, patheffects

    figure = new_figure(10, 8, title, theme)
    axes, style = figure.subplots(), figure.style
    dress(axes, style)
    axes.set(xticks=[], yticks=[], aspect="equal")
    around = [patheffects.withStroke(linewidth=HALO, foreground=style.paper)]
    classes = np.unique(labels)
    few = len(names) <= len(MARKERS) * len(style.series)
    hues = colormaps["turbo"](np.linspace(0.1, 0.95, len(names)))
    for label in classes:
        color = style.series[label % len(style.series)] if few else hues[label]
        marker = MARKERS[label // len(style.series)] if few else "o"
        x, y = places[labels == label].T
        axes.scatter(x, y, s=22, color=[color], marker=marker, linewidths=0, alpha=0.85, label=names[label])
    if few:
        legend = figure.legend(loc="outside right upper", frameon=False, title="class", ncols=1 + (len(classes) > 20))
        for text in [legend.get_title(), *legend.get_texts()]:
            text.set_color(style.ink)
            text.set_text(shortened(text.get_text(), 20))
    else:
        for label in classes[np.unique(np.linspace(0, len(classes) - 1, NAMED).round().astype(int))]:
            middle, name = np.median(places[labels == label], 0), shortened(names[label], 16)
            at = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
            axes.annotate(name, middle, fontsize=8, color=style.ink, path_effects=around, **at)
    if extra is not None and len(extra):
        axes.scatter(*extra.T, s=220, marker="*", color=style.ink, edgecolors=style.paper, zorder=3)
        for place, name in zip(extra, extra_names, strict=True):
            at = {"xytext": (8, 8), "textcoords": "offset points", "zorder": 4}
            axes.annotate(shortened(name, 24), place, fontsize=9, color=style.ink, path_effects=around, **at)
    return save(figure, path)
