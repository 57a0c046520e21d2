"""The style of all pictures: figures, colours, and how they are written.

Example:
    from st_utils.pictures.style import new_figure

    figure = new_figure(8, 4, title="spikformer on digits", theme="dark")
    axes = figure.subplots(1, 2)
    figure.style.right  # -> '#3fb950'

matplotlib is imported when the first figure is made: it is slow to import. pyplot's backend and settings stay the
caller's.
"""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from st_utils.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Theme = Literal["light", "dark"]
DPI = 120
TITLE_LETTERS = 10  # per inch of a title at 12 points


@dataclass(frozen=True)
class Style:
    """The colours of a theme.

    Attributes:
        paper, ink, faint: of the background, of text and axes, of grids and of what is beside the point.
        right, wrong: of predictions.
        on, off: of events.
        series: of lines and groups, told apart also by people who are colour-blind (Okabe and Ito 2008).
        heat: matplotlib's name of the colour map for values from 0 up.
    """

    paper: str
    ink: str
    faint: str
    right: str
    wrong: str
    on: str
    off: str
    heat: str
    series: tuple[str, ...] = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#999999")


STYLES: dict[str, Style] = {
    "light": Style("#ffffff", "#1f2328", "#d0d7de", "#1a7f37", "#cf222e", "#d1242f", "#0969da", "viridis"),
    "dark": Style("#0d1117", "#e6edf3", "#30363d", "#3fb950", "#f85149", "#ff7b72", "#58a6ff", "magma"),
}


def new_figure(width: float, height: float, title: str = "", theme: Theme = "light", **options: Any) -> Figure:
    """Make a figure of this size in inches; `figure.style` is the theme's `Style`.

    A title's long lines are broken. `options` go to matplotlib's Figure; the layout is "constrained" by default.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), **{"layout": "constrained", **options})
    figure.style = STYLES[theme]
    figure.set_facecolor(figure.style.paper)
    if title:
        figure.suptitle(wrapped(title, round(width * TITLE_LETTERS)), fontsize=12, color=figure.style.ink)
    return figure


def wrapped(text: str, letters: int) -> str:
    """Break lines of more than this many letters, at spaces where there are any."""
    return "\n".join(part for line in text.split("\n") for part in textwrap.wrap(line, max(letters, 10)) or [""])


def shortened(name: str, letters: int) -> str:
    """The name, its middle replaced by an ellipsis where it has more than this many letters."""
    end = (letters - 1) // 2
    return name if len(name) <= letters else f"{name[: letters - 1 - end]}\u2026{name[len(name) - end :]}"


def dress(axes: Axes, style: Style, grid: Literal["x", "y", "both", "none"] = "none") -> None:
    """Give axes the theme's colours, no box, and a faint grid along the given axis."""
    axes.set_facecolor(style.paper)
    axes.tick_params(colors=style.ink, labelsize=9, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(style.faint)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(style.ink)
    if grid != "none":
        axes.grid(axis=grid, color=style.faint, linewidth=0.6)
        axes.set_axisbelow(True)
    if legend := axes.get_legend():
        legend.get_frame().set_visible(False)
        for text in legend.get_texts():
            text.set_color(style.ink)


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as a PNG, whole or not at all. Raises UserError where the system refuses."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor=figure.get_facecolor())
    write_atomic(path, [buffer.getvalue()])
    return path


def save_animation(images: list[Any], path: Path, milliseconds: int, last: int | None = None) -> Path:
    """Write PIL images as a GIF that repeats, each shown for this time, whole or not at all. Raises UserError.

    `last` is the time of the last image, in milliseconds too; by default that of the others.
    """
    buffer = io.BytesIO()
    first, *rest = images
    durations = [*[milliseconds] * len(rest), milliseconds if last is None else last]
    first.save(buffer, format="GIF", save_all=True, append_images=rest, duration=durations, loop=0)
    write_atomic(path, [buffer.getvalue()])
    return path


def rendered(figure: Figure) -> Any:
    """The figure as a PIL image in RGB, a frame of an animation."""
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor=figure.get_facecolor())
    return Image.open(buffer).convert("RGB")
