"""Draw spikes: a raster of every layer as a PNG, and the outputs as they grow over the time steps as a GIF.

draw_raster(Path("spikes.png"), "csnn on digits", "a 3", frames=frames[:, 0],
            panels=[Panel("layers.1", raster, neurons=768, rate=0.2)])
draw_output(Path("spikes.gif"), "csnn on digits", "sum of logits / T", frames, gathered, names, inputs=["3"],
            predicted=["8"], right=[False])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from st_utils.pictures.samples import as_films, as_grey_or_rgb
from st_utils.pictures.style import (
    TITLE_LETTERS,
    Style,
    Theme,
    dress,
    new_figure,
    rendered,
    save,
    save_animation,
    shortened,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 6  # of the raster
BARS = 12  # the largest number of classes that all have a bar; of more, the ten with the largest outputs
STEPS = 60  # images of an animation at most
SECONDS = 4  # an animation takes about this


class Panel(NamedTuple):
    """A layer's spikes `[T, n]` of n of its neurons, the number of all of them, and spikes per neuron per step."""

    name: str
    raster: Tensor
    neurons: int
    rate: float


def draw_raster(
    path: Path, title: str, words: str, frames: Tensor, panels: Sequence[Panel], theme: Theme = "light"
) -> Path:
    """Draw which neurons fire in which time step, a panel per layer, and write it as a PNG.

    Args:
        words: what the input is.
        frames: the input, `[T, C, H, W]`; one image for all steps, or events.
        panels: in the order in which the layers run.
    """
    columns = max(min(COLUMNS, len(panels) + 1), 2)
    rows = math.ceil((len(panels) + 1) / columns)
    shown = max(panel.raster.shape[1] for panel in panels)
    note = f"each cell is one neuron in one time step; up to {shown} neurons of a layer"
    width = max(2.3 * columns, 8)
    figure = new_figure(width, 2.5 * rows + 1.2, f"{title}\n{note}", theme)
    axes = figure.subplots(rows, columns, squeeze=False)
    image = as_grey_or_rgb((frames if len(frames.unique(dim=0)) > 1 else frames[:1])[None])[0]
    first, *others = axes.ravel()
    first.imshow(image.squeeze(-1).numpy(), cmap="gray")
    first.axis("off")
    first.set_title(words, fontsize=9, color=figure.style.ink)
    for place, axis in enumerate(others):
        if place < len(panels):
            _raster(axis, panels[place], figure.style)
        else:
            axis.axis("off")
    others[0].set_xlabel("time step", fontsize=8)
    others[0].set_ylabel("neuron", fontsize=8)
    return save(figure, path)


def _raster(axes: Axes, panel: Panel, style: Style) -> None:
    """One layer: time from left to right, neurons from top to bottom; negative spikes in another colour."""
    from matplotlib.colors import LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("spikes", [style.on, style.paper, style.off])
    steps, count = panel.raster.shape
    largest = max(float(panel.raster.abs().max()), torch.finfo(torch.float32).eps)
    kind = "nearest" if steps <= 100 else "antialiased"  # more steps than pixels: means, so that none is left out
    axes.imshow(panel.raster.T, cmap=colors, vmin=-largest, vmax=largest, aspect="auto", interpolation=kind)
    of = f"{count} of {panel.neurons:,}" if count < panel.neurons else f"all {count}"
    rate = f"rate {panel.rate:.3g}" if panel.rate else "silent"
    axes.set_title(f"{_broken(panel.name)}\n{rate}, {of}", fontsize=8)
    dress(axes, style)
    for spine in axes.spines.values():
        spine.set_visible(True)
    axes.tick_params(labelsize=7)
    axes.set_xticks(range(steps) if steps <= 8 else range(0, steps, math.ceil(steps / 6)))
    axes.set_xticklabels([int(tick) + 1 for tick in axes.get_xticks()])
    axes.set_yticks([0, count - 1], [1, count])


def _broken(name: str, letters: int = 32) -> str:
    """A module's name in lines of at most this many letters, broken at dots; `.node` at its end is left out."""
    lines = [""]
    for part in name.removesuffix(".node").split("."):
        if lines[-1] and len(lines[-1]) + len(part) >= letters:
            lines.append("")
        lines[-1] += f"{part}."
    return "\n".join(lines)[:-1]


def draw_output(
    path: Path,
    title: str,
    meaning: str,
    frames: Tensor,
    gathered: Tensor,
    names: Sequence[str],
    inputs: Sequence[str],
    predicted: Sequence[str],
    right: Sequence[bool | None],
    theme: Theme = "light",
) -> Path:
    """Draw what the output of each class gathers over the time steps, the inputs beside it, and write it as a GIF.

    Args:
        meaning: what `gathered` is.
        frames: what the model sees in each step, `[T, B, C, H, W]`.
        gathered: up to and with each step, `[T, B, classes]`.
        names: of the classes.
        inputs: what each input is: its class, or a file's name.
        predicted: the class that the model answers.
        right: whether it is the input's; None where nobody has said the class.
    """
    steps, count = gathered.shape[:2]
    columns = min(5, count)
    rows = math.ceil(count / columns)
    width = max(3.1 * columns, 6.0)
    figure = new_figure(width, 2.9 * rows + 1.2, theme=theme)
    style, grid = figure.style, figure.subplots(rows, 2 * columns, width_ratios=[1, 1.25] * columns).ravel()
    films = as_films(frames)
    limits = 1.05 * min(float(gathered.min()), 0.0), 1.05 * max(float(gathered.max()), 1e-6)
    cells = []
    for number in range(count):
        beside, axes = grid[2 * number : 2 * number + 2]
        color = {True: style.right, False: style.wrong, None: style.ink}[right[number]]
        words = f"{shortened(inputs[number], 14)}\n\u2192 {shortened(predicted[number], 14)}"
        beside.set_title(words, fontsize=9, color=color)
        image = beside.imshow(films[0, number].squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
        chosen = _classes(gathered[-1, number])
        bars = axes.barh(range(len(chosen)), gathered[0, number, chosen].tolist())
        axes.set_yticks(range(len(chosen)), [shortened(names[i], 12) for i in chosen])
        axes.set(xlim=limits)
        axes.locator_params(axis="x", nbins=4)
        axes.invert_yaxis()
        axes.axvline(0, color=style.ink, linewidth=0.6)
        dress(axes, style)
        axes.tick_params(labelsize=7)
        cells.append((image, bars, chosen))
    for axis in [*grid[: 2 * count : 2], *grid[2 * count :]]:
        axis.axis("off")
    images = []
    for step in _spread(steps, STEPS):
        words = (
            f"{title}\n{meaning}, step {step + 1} of {steps}; orange: the class ahead; titles: class \u2192 prediction"
        )
        figure.suptitle(wrapped(words, round(width * TITLE_LETTERS)), fontsize=11, color=style.ink)
        for number, (image, bars, chosen) in enumerate(cells):
            image.set_data(films[step, number].squeeze(-1).numpy())
            now = gathered[step, number]
            for bar, label in zip(bars, chosen, strict=True):
                bar.set(width=float(now[label]), color=style.series[1 if label == int(now.argmax()) else 0])
        images.append(rendered(figure))
        figure.set_layout_engine("none")  # the first image's layout stands: nothing jumps
    return save_animation(images, path, milliseconds=_duration(len(images)), last=2000)


def _classes(final: Tensor) -> list[int]:
    """The classes that have bars: all, or the ten with the largest final outputs, in the order of their numbers."""
    return list(range(len(final))) if len(final) <= BARS else sorted(final.topk(10).indices.tolist())


def _spread(count: int, most: int) -> list[int]:
    """The numbers 0 to count - 1, or `most` of them at even distances, the last one among them."""
    return list(range(count)) if count <= most else [(n + 1) * count // most - 1 for n in range(most)]


def _duration(images: int) -> int:
    return min(500, max(60, 1000 * SECONDS // images))
