"""The figures of the leaderboard's page, as Plotly's JSON.

figures(join_seeds(store.runs()), published_rows())   # {"digits: learning curves": '{"data": ...', ...}
"""

from __future__ import annotations

from statistics import fmean
from typing import Any

import plotly.graph_objects as go

from benchmarks.leaderboard.chance import finite_or_none
from benchmarks.leaderboard.table import NOT_LEARNED, pareto

COSTS = {
    "energy_mj": ("energy per image (mJ, 45 nm operations)", True),
    "params": ("parameters", True),
    "images_per_second": ("training throughput (images/s)", False),
}

SYMBOLS = {"measured": "circle", "controls": "x", NOT_LEARNED: "circle-x-open"}


def figures(rows: list[dict[str, Any]], published: list[dict[str, Any]]) -> dict[str, str]:
    """Draw trade-offs, learning curves and firing rates for each set of test images: {title: JSON text}."""
    drawn: dict[str, go.Figure] = {}
    for dataset in dict.fromkeys(row["board"] for row in rows):
        here = [row for row in rows if row["board"] == dataset]
        # published figures are of whole data sets: they can't be compared with rows of a part of the images
        comparable = [each for each in published if each["dataset"] == dataset and all(map(_is_whole, here))]
        for cost, (words, less) in COSTS.items():
            if any(row.get(cost) is not None for row in here):
                drawn[f"{dataset}: top-1 against {words}"] = _trade_off(here, comparable, cost, words, less)
        drawn[f"{dataset}: learning curves"] = _curves(here)
        if any(_rates(row) for row in here):
            drawn[f"{dataset}: firing rates by layer"] = _firing(here)
    return {title: figure.to_json() for title, figure in drawn.items()}


def _is_whole(row: dict[str, Any]) -> bool:
    """Whether a row was trained and tested on all images of its data set."""
    settings = row["settings"]
    return (
        not any(settings.get(name) for name in ("train_images", "test_images")) and settings.get("target_ratio", 1) == 1
    )


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
    """The key of SYMBOLS that a row is drawn with."""
    if row["learned"] is False:
        return NOT_LEARNED
    return "controls" if row["control"] else "measured"


def _trade_off(rows: list[dict], published: list[dict], cost: str, words: str, less: bool) -> go.Figure:
    """Top-1 over a cost, with the Pareto front; `less`: a lower cost is better."""
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
    """The top-1 after each epoch, mean over seeds."""
    figure = go.Figure()
    for row in rows:
        curves = [[finite_or_none(line["top1"]) for line in run["metrics"]] for run in row["runs"] if run["metrics"]]
        mean = [None if None in points else fmean(points) for points in zip(*curves, strict=False)]
        figure.add_scatter(x=list(range(1, len(mean) + 1)), y=mean, mode="lines", name=row["label"])
    return _layout(figure, "epoch", "top-1 (%)")


def _rates(row: dict[str, Any]) -> list[tuple[str, float]]:
    """(layer, firing rate) of each layer of neurons of the first seed, in the order in which they run."""
    layers = ((row["runs"][0].get("profile") or {}).get("layers")) or []
    return [(layer["name"], layer["firing_rate"]) for layer in layers if layer.get("kind") == "node"]


def _firing(rows: list[dict[str, Any]]) -> go.Figure:
    """Firing rates as a heat map: a row of the table per line, a layer of neurons per column."""
    profiled = [(row, _rates(row)) for row in rows if _rates(row)]
    width = max(len(rates) for _, rates in profiled)
    figure = go.Figure(
        go.Heatmap(
            z=[[rate for _, rate in rates] + [None] * (width - len(rates)) for _, rates in profiled],
            text=[[name for name, _ in rates] + [""] * (width - len(rates)) for _, rates in profiled],
            y=[row["label"] for row, _ in profiled],
            hovertemplate="%{y}<br>%{text}: %{z:.3f} spikes per neuron per step<extra></extra>",
            colorscale="Viridis",
        )
    )
    return _layout(figure, "neuron layer, in the order in which they run", "").update_yaxes(automargin=True)
