"""The page's figures, as Plotly's own JSON."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import plotly.graph_objects as go

from benchmarks.leaderboard.chance import finite
from benchmarks.leaderboard.table import NOT_LEARNED, pareto

COSTS = {
    "energy_mj": ("energy an image (mJ, 45 nm operations)", True),
    "params": ("parameters", True),
    "images_per_second": ("training throughput (images/s)", False),
}

SYMBOLS = {"measured": "circle", "controls": "x", NOT_LEARNED: "circle-x-open"}


def figures(rows: list[dict[str, Any]], published: list[dict[str, Any]]) -> dict[str, str]:
    """Title -> figure (JSON text): trade-offs, learning curves and firing rates, a set for each set of test images."""
    found: dict[str, go.Figure] = {}
    for dataset in dict.fromkeys(row["board"] for row in rows):
        here = [row for row in rows if row["board"] == dataset]
        # rows of only some images are no measure of what was published of all: these stand beside whole data sets
        known = [each for each in published if each["dataset"] == dataset and all(map(_is_whole, here))]
        for cost, (words, less) in COSTS.items():
            if any(row.get(cost) is not None for row in here):
                found[f"{dataset}: top-1 against {words}"] = _trade_off(here, known, cost, words, less)
        found[f"{dataset}: learning curves"] = _curves(here)
        if any(_rates(row) for row in here):
            found[f"{dataset}: firing rates by layer"] = _firing(here)
    return {title: figure.to_json() for title, figure in found.items()}


def _is_whole(row: dict[str, Any]) -> bool:
    return not any(row["settings"].get(name) for name in ("train_images", "test_images"))


def _layout(figure: go.Figure, x: str, y: str) -> go.Figure:
    return figure.update_layout(
        xaxis_title=x,
        yaxis_title=y,
        margin={"l": 60, "r": 20, "t": 20, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"font": {"size": 10}},
        height=420,
    )


def _kind(row: dict[str, Any]) -> str:
    if row["learned"] is False:
        return NOT_LEARNED
    return "controls" if row["control"] else "measured"


def _trade_off(rows: list[dict], published: list[dict], cost: str, words: str, less: bool) -> go.Figure:
    figure = go.Figure()
    measured = [row for row in rows if row.get(cost) is not None and row["top1"] is not None]
    for name, symbol in SYMBOLS.items():
        points = [row for row in measured if _kind(row) == name]
        if points:
            figure.add_scatter(
                x=[row[cost] for row in points],
                y=[row["top1"] for row in points],
                error_y={"type": "data", "array": [row["top1_std"] or 0 for row in points]},
                text=[row["label"] for row in points],
                mode="markers",
                marker={"size": 10, "symbol": symbol},
                name=name,
            )
    front = pareto(rows, cost, less)
    figure.add_scatter(
        x=[row[cost] for row in front],
        y=[row["top1"] for row in front],
        mode="lines",
        line={"dash": "dot"},
        name="Pareto front",
        hoverinfo="skip",
    )
    others = [each for each in published if each.get(cost) is not None]
    if others:
        figure.add_scatter(
            x=[each[cost] for each in others],
            y=[each["top1"] for each in others],
            text=[f"{each['label']}<br>{each['where']}" for each in others],
            mode="markers",
            marker={"size": 9, "symbol": "diamond-open"},
            name="published by others",
        )
    return _layout(figure, words, "top-1 (%)")


def _curves(rows: list[dict[str, Any]]) -> go.Figure:
    """Mean over seeds of the top-1 after each epoch."""
    figure = go.Figure()
    for row in rows:
        curves = [[finite(line["top1"]) for line in run["metrics"]] for run in row["runs"] if run["metrics"]]
        mean = [None if None in points else fmean(points) for points in zip(*curves, strict=False)]
        figure.add_scatter(x=list(range(1, len(mean) + 1)), y=mean, mode="lines", name=row["label"])
    return _layout(figure, "epoch", "top-1 (%)")


def _rates(row: dict[str, Any]) -> list[tuple[str, float]]:
    """The firing rate of each neuron layer, in the order in which they run (of the first seed)."""
    layers = ((row["runs"][0].get("profile") or {}).get("layers")) or []
    return [(layer["name"], layer["firing_rate"]) for layer in layers if layer.get("kind") == "node"]


def _firing(rows: list[dict[str, Any]]) -> go.Figure:
    """A map: rows of the table against the place of the layer among the model's neurons."""
    known = [(row, _rates(row)) for row in rows if _rates(row)]
    width = max(len(rates) for _, rates in known)
    figure = go.Figure(
        go.Heatmap(
            z=[[rate for _, rate in rates] + [None] * (width - len(rates)) for _, rates in known],
            text=[[name for name, _ in rates] + [""] * (width - len(rates)) for _, rates in known],
            y=[row["label"] for row, _ in known],
            hovertemplate="%{y}<br>%{text}: %{z:.3f} spikes a neuron and step<extra></extra>",
            colorscale="Viridis",
        )
    )
    return _layout(figure, "neuron layer, in the order in which they run", "").update_yaxes(automargin=True)
