"""The table's rows: runs joined over seeds, with spread, controls, and what a difference is worth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from scipy import stats

from registry import Spec, parse

# what a summary says that is averaged over seeds
MEASURED = (
    "top1",
    "top5",
    "params",
    "firing_rate",
    "sops",
    "macs",
    "energy_mj",
    "energy_memory_mj",
    "images_per_second",
    "train_seconds",
    "peak_memory_mib",
)
CONTROLS = ("random", "identity")
CONFIDENCE = 0.95
PUBLISHED = Path(__file__).with_name("published.yml")


def published_rows() -> list[dict[str, Any]]:
    """Figures that others published, each with `where` it stands and its `source`."""
    return yaml.safe_load(PUBLISHED.read_text())


def join_seeds(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for all finished runs that differ only by their seed, best first within each data set.

    A row has every name of MEASURED as the mean (None where no run has it), `top1_std` (the sample's standard
    deviation, None for one seed), `seeds`, `control`, `spike_driven`, `verdict`, `against_random`, and its `runs`.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        if run["status"] == "done":
            groups.setdefault(run["row"], []).append(run)
    rows = [_row(key, found) for key, found in groups.items()]
    rows.sort(key=lambda row: (row["dataset"], -row["top1"]))
    for row in rows:
        alike = [other for other in rows if other["dataset"] == row["dataset"]]
        best = next((other for other in alike if len(other["seeds"]) > 1), alike[0])  # one seed may be luck
        row["verdict"] = "best" if row is best else compare(row, best)
        row["against_random"] = _against_control(row, alike)
    return rows


def _row(key: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    spec, first = parse(runs[0]["spec"]), runs[0]
    scores = [run["summary"]["top1"] for run in runs]
    return {
        "row": key,
        "spec": first["spec"],
        "label": first["label"] or first["spec"],
        "model": spec.name,
        "attention": _part(first, spec, "attention"),
        "node": _part(first, spec, "node"),
        "dataset": first["dataset"],
        "recipe": first["recipe"],
        "settings": first["settings"],
        "epochs": first["summary"]["epochs"],
        "seeds": sorted(run["seed"] for run in runs),
        **{name: _mean(run["summary"].get(name) for run in runs) for name in MEASURED},
        "top1_std": statistics.stdev(scores) if len(scores) > 1 else None,
        "scores": scores,
        "control": _part(first, spec, "attention") in CONTROLS,
        "spike_driven": first["summary"].get("spike_driven"),
        "runs": runs,
    }


def _part(run: dict[str, Any], spec: Spec, kind: str) -> str:
    """The name of a part of the model, its default where the spec leaves it open."""
    full = parse(run["summary"]["full_spec"]) if run["summary"].get("full_spec") else spec
    value = full.args.get(kind)
    return value.name if isinstance(value, Spec) else str(value or "")


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def compare(row: dict[str, Any], other: dict[str, Any]) -> str:
    """What the difference in top-1 to another row is worth, by Welch's interval at 95 % over the seeds.

    "within the spread", or the difference in points; "one seed" where there is no spread to judge by.
    """
    a, b = row["scores"], other["scores"]
    if len(a) < 2 or len(b) < 2:
        return "one seed"
    difference = statistics.fmean(a) - statistics.fmean(b)
    va, vb = statistics.variance(a) / len(a), statistics.variance(b) / len(b)
    if va + vb == 0:
        return "within the spread" if difference == 0 else f"{difference:+.2f}"
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    margin = stats.t.ppf(0.5 + CONFIDENCE / 2, freedom) * math.sqrt(va + vb)
    return "within the spread" if abs(difference) <= margin else f"{difference:+.2f}"


def _against_control(row: dict[str, Any], alike: list[dict[str, Any]]) -> str:
    """How the row compares with the same model with random attention: what learning where to look has earned."""
    if row["attention"] == "random":
        return "control"
    bare = _without_attention(row)
    control = next((o for o in alike if o["attention"] == "random" and _without_attention(o) == bare), None)
    return compare(row, control) if control else ""


def _without_attention(row: dict[str, Any]) -> tuple[str, str, str]:
    spec = parse(row["spec"])
    kept = {name: value for name, value in spec.args.items() if name != "attention"}
    return str(Spec(spec.name, kept)), row["recipe"], str(row["settings"])


def pareto(rows: list[dict[str, Any]], cost: str, less_is_better: bool = True) -> list[dict[str, Any]]:
    """The rows that no other beats in both top-1 and cost, by rising cost."""
    sign = 1 if less_is_better else -1
    known = sorted((r for r in rows if r.get(cost) is not None), key=lambda r: (sign * r[cost], -r["top1"]))
    front: list[dict[str, Any]] = []
    for row in known:
        if not front or row["top1"] > front[-1]["top1"]:
            front.append(row)
    return front
