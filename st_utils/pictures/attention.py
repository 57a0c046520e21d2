r"""Draw what attentions attend to: one page per attention, and an overview of all of them.

draw_attention(Path("attention-blocks.0.png"), title="spikformer\nblocks.0: ssa", image=image, **maps._asdict())

The numbers are those of `HeatMaps` in st_utils/analysis/attention.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from st_utils.pictures.heat import GAP, Panels, evenly
from st_utils.pictures.style import Theme, new_figure, save, wrapped

MOST = 16  # panels in a row, and rows of heads; more are drawn at even distances
INCHES = 1.0  # side of a panel


class Overview(NamedTuple):
    """One attention in the overview: its name, what it computes, and a map `[rows, columns]` of each input."""

    name: str
    spec: str
    maps: list[Tensor]
    sizes: list[tuple[float, float]]  # of the maps, as parts of the image's rows and columns
    kind: str  # what the maps are
    has_query: bool  # they are of one token's row; else of all tokens


def draw_attention(
    path: Path,
    title: str,
    image: Tensor,
    mean: Tensor,
    of_query: Tensor | None,
    query: tuple[int, int] | None,
    tokens: tuple[int, int],
    cell: int,
    heads: str,
    formula: str,
    kind: str,
    meaning: str,
    theme: Theme = "light",
) -> Path:
    """Draw the maps of one attention for one input, heads in rows and time steps in columns, and write them as a PNG.

    Args:
        image: `[H, W, 1 or 3]`, from 0 to 1.
        The other arguments are the attributes of `HeatMaps`.
    """
    layout = Layout.of(mean)
    groups = {"mean over all tokens' rows": mean} if query is not None else {"": mean}
    if query is not None:
        groups = {"row of the framed token": of_query, **groups}
    size = tuple(max(side, keys * cell) for side, keys in zip(tokens, mean.shape[-2:], strict=True))  # with padding
    side_by_side = len(groups) * layout.width <= MOST + 1
    wide, high = (len(groups), 1) if side_by_side else (1, len(groups))
    panel = (INCHES * min(1.0, size[0] / size[1]), INCHES * min(1.0, size[1] / size[0]))
    width = 2.2 + wide * (layout.width * panel[1] * (1 + GAP) + 0.9)
    height = 1.5 + high * (len(layout.heads) * panel[0] * (1 + GAP) + 0.9)
    text = f"{title}\n{kind}: {formula}{'; columns: step of the query ← step of the keys' * (layout.span > 1)}"
    figure = new_figure(max(width, 7.5), height, text + layout.left_out(mean, heads), theme)
    grid = figure.add_gridspec(high, 1 + wide, width_ratios=[1.4, *[layout.width * panel[1] + 0.6] * wide])
    _draw_input(figure, figure.add_subplot(grid[0, 0]), image, tokens, query)
    for number, (label, maps) in enumerate(groups.items()):
        axes = figure.add_subplot(grid[0 if side_by_side else number, 1 + number * side_by_side])
        top, low = float(maps.max()), float(maps.min())
        panels = Panels(axes, figure.style, size, max(top, -low), signed=low < 0)
        for row, head in enumerate(layout.heads):
            panels.write(row, 0, heads if mean.shape[1] == 1 else f"{heads} {head + 1}", side="left")
            for column, step, key in layout.columns():
                heat = maps[step, head, key]
                panels.draw(row, column, image, heat, tokens, tuple(length * cell for length in heat.shape))
                if query is not None and number == 0 and layout.key_step(step, key) == step:
                    panels.frame(row, column, query, (1, 1))
                if row == 0:
                    panels.write(row, column, layout.name(step, key))
        panels.finish()
        panels.bar(figure, f"{label}: {meaning}" if label else meaning)
        if top == low == 0:
            axes.set_title("every value is 0", fontsize=9, color=figure.style.wrong, pad=14)
    return save(figure, path)


class Layout(NamedTuple):
    """Which steps, key steps and heads are drawn, and where: at most MOST panels in a row, and MOST rows.

    Attributes:
        keys: numbers of the key steps within a group of `span` steps.
    """

    steps: list[int]
    keys: list[int]
    heads: list[int]
    span: int

    @classmethod
    def of(cls, maps: Tensor) -> Layout:
        """The layout of maps `[T, h, S, rows, columns]`."""
        steps, heads, span = maps.shape[:3]
        keys = evenly(span, MOST)
        return cls(evenly(steps, max(1, MOST // len(keys))), keys, evenly(heads, MOST), span)

    @property
    def apart(self) -> float:
        """The room, in panels, between the keys of one step and those of the next."""
        return 0.3 if self.span > 1 else 0.0

    @property
    def width(self) -> float:
        """The width of a row in panels."""
        return len(self.steps) * (len(self.keys) + self.apart) - self.apart

    def columns(self) -> Iterator[tuple[float, int, int]]:
        """(column, step, number of the key step) of each panel of a row."""
        for place, step in enumerate(self.steps):
            for inner, key in enumerate(self.keys):
                yield place * (len(self.keys) + self.apart) + inner, step, key

    def key_step(self, step: int, key: int) -> int:
        """The time step of a step's keys number `key`."""
        return step // self.span * self.span + key

    def name(self, step: int, key: int) -> str:
        """`step 3`; where a token sees several steps, `3 ← 4`: the query's step and the keys'."""
        return f"step {step + 1}" if self.span == 1 else f"{step + 1} ← {self.key_step(step, key) + 1}"

    def left_out(self, maps: Tensor, heads: str) -> str:
        """What the title says of what is not drawn."""
        counts = zip(
            (self.steps, self.heads, self.keys), maps.shape[:3], ("steps", f"{heads}s", "key steps"), strict=True
        )
        parts = [f"{len(shown)} of {count} {what}" for shown, count, what in counts if len(shown) < count]
        return f"; shown: {', '.join(parts)}" if parts else ""


def draw_overview(
    path: Path,
    title: str,
    images: Sequence[Tensor],
    names: Sequence[str],
    found: Sequence[Overview],
    query: tuple[float, float],
    theme: Theme = "light",
) -> Path:
    """Draw a map of each attention (columns) for each input (rows), and write them as a PNG.

    `query` is the place of the query's token, (0, 0) to (1, 1); it is marked where an attention has queries.
    """
    shown = [found[i] for i in evenly(len(found), 12)]
    height, width = images[0].shape[:2]
    size = (1.0, width / height)
    omitted = f"; {len(shown)} of {len(found)} attentions" * (len(shown) < len(found))
    marked = any(attention.has_query for attention in shown)
    weights = "; weights: those of the token at +" * marked
    text = f"{title}\nmean over heads and time steps{weights}{omitted}"
    width = 1.5 + 1.35 * (1 + len(shown)) * size[1]
    figure = new_figure(max(7.5, width), 1.9 + 1.35 * len(images), text, theme)
    axes = figure.subplots()
    signed = any(float(each.min()) < 0 for attention in shown for each in attention.maps)
    panels = Panels(axes, figure.style, size, 1.0, signed)
    for row, (image, name) in enumerate(zip(images, names, strict=True)):
        panels.draw(row, 0, image)
        panels.write(row, 0, wrapped(name, 16), side="left")
        if marked:
            panels.dot(row, 0, (query[0] * size[0], query[1] * size[1]))
    for column, attention in enumerate(shown, 1):
        top = max(float(each.abs().max()) for each in attention.maps)
        panels.write(0, column, f"{attention.name}\n{attention.spec}\n{attention.kind}: up to {top:.3g}")
        for row, (image, heat, part) in enumerate(zip(images, attention.maps, attention.sizes, strict=True)):
            extent = (part[0] * size[0], part[1] * size[1])
            panels.draw(row, column, image, heat / (top or 1), heat_size=extent)
    panels.finish()
    panels.bar(figure, "part of the column's largest value")
    return save(figure, path)


def _draw_input(figure: Any, axes: Any, image: Tensor, tokens: tuple[int, int], query: tuple[int, int] | None) -> None:
    panels = Panels(axes, figure.style, tokens, 1.0)
    panels.draw(0, 0, image)
    panels.write(0, 0, f"input, {tokens[0]} x {tokens[1]} tokens")
    if query is not None:
        panels.frame(0, 0, query, (1, 1))
    panels.finish()
    axes.set_anchor("N")
