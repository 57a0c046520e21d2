"""Draw a profile: firing rates, energy and time of each block with q, k, v apart, and a map of layers and time steps.

from pathlib import Path

draw_profile(Path("profile.png"), "spikformer on digits", profile(model, images))
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_utils.pictures.style import Style, Theme, dress, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NJ_PER_MJ = 1e6
ROLES = ("q", "k", "v", "attention", "mlp", "other")  # one colour each in all pictures
ROLE_HEIGHT, LAYER_HEIGHT = 0.16, 0.19  # inches of a bar and of a row of the map


def draw_profile(path: Path, title: str, profile: dict[str, Any], theme: Theme = "light") -> None:
    """Draw what `st_utils.analysis.profile.profile` returns and write it as a PNG. Raises UserError."""
    blocks = profile["blocks"]
    nodes = [layer for layer in profile["layers"] if layer["kind"] == "node"]
    bars = sum(len(block["roles"]) + 1 for block in blocks)
    height = max(4.5, 1.6 + ROLE_HEIGHT * bars, 1.6 + LAYER_HEIGHT * len(nodes))
    figure = new_figure(17, height, title, theme)
    style = figure.style
    left, right = figure.subfigures(1, 2, width_ratios=(1.5, 1)) if nodes else (figure.subfigures(1, 1), None)
    left.set_facecolor(style.paper)
    axes = left.subplots(1, 3, sharey=True)
    present = {role for block in blocks for role in block["roles"]}
    colors = {role: color for role, color in zip(ROLES, style.series, strict=False) if role in present}
    energies = [role["energy_mj"] for block in blocks for role in block["roles"].values() if role["energy_mj"]]
    unit, scale = ("nJ", NJ_PER_MJ) if min(energies, default=1.0) < 0.0005 else ("mJ", 1.0)
    panels = (
        ("firing_rate", 1.0, "spikes per neuron per step"),
        ("energy_mj", scale, f"{unit} per image"),
        ("ms", 1.0, "ms per image"),
    )
    for panel, (name, factor, words) in zip(axes, panels, strict=True):
        _bars(panel, blocks, name, factor, colors)
        panel.set_xlabel(words)
        dress(panel, style, grid="x")
    handles = [axes[0].barh([0], [0], color=color, label=role) for role, color in colors.items()]
    left.legend(handles=handles, loc="outside upper center", ncols=len(colors), frameon=False, labelcolor=style.ink)
    if right is not None:
        right.set_facecolor(style.paper)
        _steps(right.subplots(), right, nodes, profile["steps"], style)
    save(figure, path)


def _bars(axes: Axes, blocks: list[dict[str, Any]], name: str, scale: float, colors: dict[str, str]) -> None:
    """A bar for each role of each block, blocks from above; the mark on the left names the block."""
    place, marks = 0, []
    for block in blocks:
        marks.append((place + (len(block["roles"]) - 1) / 2, block["label"]))
        for role, figures in block["roles"].items():
            axes.barh(place, scale * (figures[name] or 0.0), height=0.9, color=colors[role])
            place += 1
        place += 1
    axes.set_yticks([where for where, _ in marks], [words for _, words in marks])
    axes.set_ylim(place - 1.2, -0.8)
    axes.set_xlim(0.0, None if any(bar.get_width() for bar in axes.patches) else 1.0)


def _steps(axes: Axes, figure: Any, nodes: list[dict[str, Any]], steps: int, style: Style) -> None:
    """The map of firing rates: a row for each layer of neurons, a column for each time step; grey where not told apart.

    Lines part the chunks of time steps of an attention that has them.
    """
    import numpy as np
    from matplotlib import colormaps

    rates = np.array([node["firing_by_step"] or [float("nan")] * steps for node in nodes], dtype=float)
    heat = colormaps[style.heat].with_extremes(bad=style.faint)
    highest = max(float(np.nanmax(rates, initial=0.0)), 1e-3)  # a silent network is dark, not amid a scale around 0
    image = axes.imshow(rates, aspect="auto", cmap=heat, vmin=0.0, vmax=highest, interpolation="nearest")
    for row, node in enumerate(nodes):  # a line between the chunks of an attention that mixes steps
        chunks = len(node.get("firing_by_chunk") or ())
        axes.vlines([steps / chunks * i - 0.5 for i in range(1, chunks)], row - 0.5, row + 0.5, colors=style.paper)
    axes.set_yticks(range(len(nodes)), [node["label"] for node in nodes])
    shown = range(0, steps, -(-steps // 16))
    axes.set_xticks(shown, [str(step + 1) for step in shown])
    axes.set_xlabel("time step")
    axes.set_title("firing rate of each layer of neurons", fontsize=10)
    dress(axes, style)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.ax.tick_params(colors=style.ink, labelsize=8)
    bar.set_label("spikes per neuron per step", color=style.ink, fontsize=9)
    bar.outline.set_edgecolor(style.faint)
