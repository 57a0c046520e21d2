"""Heat maps over images: rows and columns of small panels in one pair of axes, each an image under a map.

Example:
    import torch
    from st_utils.pictures.heat import Panels
    from st_utils.pictures.style import new_figure

    figure = new_figure(4, 2)
    panels = Panels(figure.subplots(), figure.style, size=(8, 8), top=1.0)
    panels.draw(row=0, column=0, image=torch.rand(32, 32, 1), heat=torch.rand(8, 8))
    panels.finish()
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from st_utils.pictures.style import Style

GAP = 0.1  # between panels, as a part of a panel
OPAQUE = 0.92  # of the largest value; 0 shows the image alone
FAINTEST = 0.3  # where the theme's colours begin: the ones before are too dark over a dark image
DIM = 0.5  # how much of the image is seen under a map


def heat_colors(style: Style, signed: bool = False) -> Any:
    """A colour map from transparent at 0 to the theme's strongest colour; signed: in both directions from 0."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    share = np.linspace(-1 if signed else 0, 1, 256)
    first = 0 if signed else FAINTEST
    colors = colormaps["coolwarm" if signed else style.heat](np.linspace(first, 1, 256))
    colors[:, 3] = OPAQUE * np.abs(share) ** 0.5
    return ListedColormap(colors)


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of the numbers from 0 to count - 1, at even distances."""
    return list(range(count)) if count <= most else [i * count // most for i in range(most)]


class Panels:
    """Panels of one size in one pair of axes: hundreds of them are drawn fast, and they stay aligned.

    Args:
        size: (rows, columns) that a panel spans, in the unit of the maps' extents.
        top: the value of the strongest colour.
        signed: values below 0 have colours as well.
    """

    def __init__(self, axes: Any, style: Style, size: tuple[float, float], top: float, signed: bool = False):
        from matplotlib.colors import Normalize

        self.axes, self.style, self.size = axes, style, size
        self.colors = heat_colors(style, signed)
        self.scale = Normalize(-top if signed else 0, top or 1)  # all 0: nothing is drawn
        self.right = self.bottom = 0.0

    def corner(self, row: float, column: float) -> tuple[float, float]:
        """(x, y) of a panel's upper left corner."""
        height, width = self.size
        return column * width * (1 + GAP), row * height * (1 + GAP)

    def draw(
        self,
        row: float,
        column: float,
        image: Tensor,
        heat: Tensor | None = None,
        image_size: tuple[float, float] | None = None,
        heat_size: tuple[float, float] | None = None,
    ) -> None:
        """Draw an image `[H, W, 1 or 3]`, and over it a map `[rows, columns]`; by default both fill the panel."""
        x, y = self.corner(row, column)
        height, width = image_size or self.size
        pixels = image.cpu().numpy()
        pixels = np.repeat(pixels, 3, -1) if pixels.shape[-1] == 1 else pixels
        if heat is not None:
            pixels = DIM * pixels  # bright pixels would drown the map
        self.axes.imshow(pixels, extent=(x, x + width, y + height, y))
        if heat is not None:
            height, width = heat_size or self.size
            self.axes.imshow(
                heat.float().cpu().numpy(), extent=(x, x + width, y + height, y), cmap=self.colors, norm=self.scale
            )
        self.right, self.bottom = max(self.right, x + self.size[1]), max(self.bottom, y + self.size[0])

    def write(self, row: float, column: float, text: str, color: str | None = None, side: str = "top") -> None:
        """Write a text above a panel, or with side="left" before it."""
        x, y = self.corner(row, column)
        height, width = self.size
        place = {"color": color or self.style.ink, "fontsize": 8}
        if side == "left":
            self.axes.text(x - GAP * width, y + height / 2, text, ha="right", va="center", **place)
        else:
            self.axes.text(x + width / 2, y - GAP * height / 2, text, ha="center", va="bottom", **place)

    def frame(self, row: float, column: float, at: tuple[float, float], size: tuple[float, float]) -> None:
        """Mark a place in a panel, (row, column) of its upper left corner and its (rows, columns)."""
        from matplotlib.patches import Rectangle

        x, y = self.corner(row, column)
        self.axes.add_patch(
            Rectangle((x + at[1], y + at[0]), size[1], size[0], fill=False, edgecolor=self.style.wrong, linewidth=1.5)
        )

    def dot(self, row: float, column: float, at: tuple[float, float]) -> None:
        """Mark a point in a panel, as (row, column)."""
        x, y = self.corner(row, column)
        self.axes.plot(x + at[1], y + at[0], marker="+", color=self.style.wrong, markersize=9, markeredgewidth=2)

    def finish(self, left: float = 0.0) -> None:
        """Set the limits to what was drawn, with room on the left for texts; call it last."""
        self.axes.set(xlim=(-left, self.right), ylim=(self.bottom, 0), aspect="equal")
        self.axes.axis("off")

    def bar(self, figure: Any, label: str, axes: Any = None) -> None:
        """Draw the scale of the colours under the panels."""
        from matplotlib.cm import ScalarMappable

        scale = figure.colorbar(
            ScalarMappable(self.scale, self.colors),
            ax=axes or self.axes,
            location="bottom",
            shrink=0.6,
            aspect=40,
            pad=0.02,
        )
        scale.set_label(label, color=self.style.ink, fontsize=9)
        scale.ax.tick_params(colors=self.style.ink, labelsize=8)
        scale.ax.set_facecolor("black")  # the colours are transparent, over images with much black
        scale.outline.set_edgecolor(self.style.faint)
