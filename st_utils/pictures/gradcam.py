"""Draw Grad-CAM maps: a row per input and class, with the mean over time steps and each step.

row = Row(image=torch.rand(32, 32, 1), text="for 3 (p = 0.98): predicted, true", right=True, maps=torch.rand(4, 32, 32))
draw_grad_cam(Path("gradcam.png"), title="spikformer on digits", rows=[row])
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from st_utils.pictures.heat import GAP, Panels, evenly
from st_utils.pictures.style import Theme, new_figure, save, wrapped

MOST_STEPS = 10  # more are drawn at even distances
INCHES = 1.25  # width of a panel
LABEL = 1.5  # inches for the text before a row
LETTERS = 20  # of a line of that text


class Row(NamedTuple):
    """An input and a class.

    Attributes:
        image: `[H, W, 1 or 3]`, from 0 to 1.
        text: of which class the maps are.
        right: whether the class is the true one; None: unknown.
        maps: `[T, H, W]`, 0 or more.
    """

    image: Tensor
    text: str
    right: bool | None
    maps: Tensor


def draw_grad_cam(path: Path, title: str, rows: Sequence[Row], theme: Theme = "light") -> Path:
    """Draw the rows and write them as a PNG.

    The colours of a row are parts of the largest value over its time steps, so that the steps compare.
    """
    count = len(rows[0].maps)
    steps = evenly(count, MOST_STEPS)
    pixels = rows[0].image.shape[:2]
    size = (pixels[0] / pixels[1], 1.0)
    columns = 2 + len(steps)
    width = LABEL + columns * INCHES * (1 + GAP) + 0.3
    omitted = f"; {len(steps)} of {count} steps" * (len(steps) < count)
    figure = new_figure(width, 1.9 + len(rows) * INCHES * size[0] * (1 + GAP), title + omitted, theme)
    panels = Panels(figure.subplots(), figure.style, size, 1.0)
    panels.write(0, 0, "input")
    panels.write(0, 1, "mean over steps")
    for column, step in enumerate(steps, 2):
        panels.write(0, column, f"step {step + 1}" if count > 1 else "all steps in one")
    for number, row in enumerate(rows):
        top = float(row.maps.max())
        color = {True: figure.style.right, False: figure.style.wrong, None: figure.style.ink}[row.right]
        silent = "\nthe map is 0" * (top == 0)
        panels.write(number, 0, wrapped(row.text + silent, LETTERS), color, side="left")
        panels.draw(number, 0, row.image)
        for column, heat in enumerate([row.maps.mean(0), *(row.maps[step] for step in steps)], 1):
            panels.draw(number, column, row.image, heat / (top or 1))
    panels.finish(left=LABEL / INCHES)
    panels.bar(figure, "part of the row's largest value over all steps")
    return save(figure, path)
