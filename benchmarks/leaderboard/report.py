"""Write the leaderboard: one page that needs no network, table.md and table.csv.

    with Store("results.db") as store:
        write_report(store.runs("smoke"), Path("leaderboard"))   # leaderboard/index.html

COLUMNS says what each column of the table means, with its unit.
"""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.leaderboard.table import MEASURED, join_seeds, published_rows
from st_utils.errors import UserError
from st_utils.files import write_atomic

TEMPLATE = Path(__file__).with_name("page.html.j2")
# column -> (heading, meaning, decimals)
COLUMNS: dict[str, tuple[str, str, int | None]] = {
    "label": ("model", "the row's spec builds it again", None),
    "dataset": ("data", "data set", None),
    "top1": ("top-1 %", "test accuracy after the last epoch, mean over seeds ± standard deviation", 2),
    "verdict": (
        "to the highest",
        "difference in percentage points to the highest mean, or within the spread (Welch, 95 %); "
        "best: above all others by more than the spread",
        None,
    ),
    "marks": ("notes", "why the row may mislead", None),
    "best_top1": (
        "best epoch %",
        "test accuracy of the best epoch, which is chosen on the test images: too high, but often published",
        2,
    ),
    "best_epoch": ("best epoch", "epoch with the highest test accuracy, of each seed", None),
    "train_top1": (
        "training top-1 %",
        "accuracy on the augmented training images during the last epoch, while the weights change; for mixed images "
        "(mixup, cutmix) the label with the larger share is right",
        2,
    ),
    "against_random": (
        "to random attention",
        "difference in percentage points to the same model with frozen random attention",
        None,
    ),
    "seeds": ("seeds", "the seeds whose runs are done", None),
    "test_images": ("test images", "number of images that each seed was tested on", 0),
    "chance": ("chance %", "accuracy of always answering the most frequent class of the test images", 2),
    "epochs": ("epochs", "number of training epochs", 0),
    "params": ("parameters", "number of weights of the model", 0),
    "firing_rate": ("firing rate", "spikes per neuron per step", 3),
    "sops": ("SOPs", "synaptic operations (accumulations) per image, counted from its spikes", 0),
    "energy_mj": ("energy mJ", "per image: 4.6 pJ per MAC, 0.9 pJ per AC (45 nm)", 4),
    "energy_memory_mj": ("with memory", "energy in mJ per image with memory traffic, 24.96 pJ per byte", 4),
    "spike_driven": ("spike-driven", "does every product after the first layer have only spikes as input?", None),
    "images_per_second": ("images/s", "training images per second, on the machine of the run", 0),
    "peak_memory_mib": ("memory MiB", "peak of memory in training", 0),
    "row": ("key", "python -m benchmarks.leaderboard reproduce KEY", None),
}


def write_report(runs: list[dict[str, Any]], out: Path) -> Path:
    """Write index.html, table.md and table.csv into `out`; return the page's path.

    Raises:
        UserError: no run is done, or the folder can't be written to.
    """
    import jinja2
    from plotly.offline import get_plotlyjs

    from benchmarks.leaderboard.figures import figures

    rows, published = join_seeds(runs), published_rows()
    if not rows:
        raise UserError("no run of the store is done: `python -m benchmarks.leaderboard run --suite smoke` does some")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(TEMPLATE.read_text()).render(
        columns=COLUMNS,
        rows=[{**row, "cells": {name: cell(row, name) for name in COLUMNS}} for row in rows],
        published=published,
        figures=[(title, json.loads(text)) for title, text in figures(rows, published).items()],
        plotly=get_plotlyjs(),
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        machines=_values(rows, "device"),
        commits=_values(rows, "commit"),
        versions=_values(rows, "torch"),
        unfinished=[run for run in runs if run["status"] in ("pending", "running")],
        failed=[run for run in runs if run["status"] == "failed"],
        few=[row["label"] for row in rows if len(row["seeds"]) < 3],
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another --out") from None
    write_atomic(out / "table.md", [markdown(rows).encode()])
    write_atomic(out / "table.csv", [as_csv(rows).encode()])
    write_atomic(out / "index.html", [page.encode()])
    return out / "index.html"


def _values(rows: list[dict[str, Any]], name: str) -> list[str]:
    """The different values of a key of the runs' summaries, sorted."""
    return sorted({str(run["summary"].get(name) or "unknown") for row in rows for run in row["runs"]})


def cell(row: dict[str, Any], name: str) -> str:
    """The text of a cell; empty where the row has no such value."""
    value, digits = row.get(name), COLUMNS[name][2]
    if value is None or value == "":
        return ""
    if name == "top1":
        spread = row["top1_std"]
        return f"{value:.2f}" + ("" if spread is None else f" ± {spread:.2f}")
    if isinstance(value, list):
        return ("; " if name == "marks" else ", ").join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if digits is None else f"{value:,.{digits}f}"


def markdown(rows: list[dict[str, Any]], columns: tuple[str, ...] = tuple(COLUMNS)) -> str:
    """Format the table in Markdown."""
    lines = [[COLUMNS[name][0] for name in columns], ["---"] * len(columns)]
    lines += [[_code(cell(row, name), name) for name in columns] for row in rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _code(text: str, name: str) -> str:
    """A cell for Markdown: specs and keys as code."""
    return f"`{text}`" if name in ("label", "row") else text.replace("|", "\\|")


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Format the table as CSV, with all decimals."""
    names = ["row", "spec", "label", "dataset", "recipe", "epochs", "top1_std", *MEASURED, "verdict", "against_random"]
    names += ["learned", "chance", "test_images", "spike_driven", "board"]
    lists = {"seeds": " ", "best_epoch": " ", "marks": "; "}
    text = io.StringIO()
    writer = csv.DictWriter(text, [*names, *lists], extrasaction="ignore")
    writer.writeheader()
    for row in rows:
        joined = {name: between.join(map(str, row[name])) for name, between in lists.items()}
        writer.writerow({**row, **joined})
    return text.getvalue()
