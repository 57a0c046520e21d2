"""The table's rows: runs joined over seeds, with spread, controls, and what a difference is worth.

Rows are compared only with rows on the same test images, and never with one at chance level: a network that did not
learn may be small, silent and spike-driven, and is none the better for it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from scipy import stats

from benchmarks.leaderboard.chance import above_chance, finite, score_of
from benchmarks.leaderboard.marks import data_contents, repeated, row_marks
from registry import Spec, parse

# what a summary says that is averaged over seeds
MEASURED = (
    "top1",
    "best_top1",
    "train_top1",
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
NOT_LEARNED = "did not learn"
PUBLISHED = Path(__file__).with_name("published.yml")


def published_rows() -> list[dict[str, Any]]:
    """Figures that others published, each with `where` it stands and its `source`."""
    return yaml.safe_load(PUBLISHED.read_text())


def join_seeds(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for all runs that differ only by their seed and of which one is finished, best first in each data set.

    Rows that did not learn come after those that did, rows without accuracy last.

    A row has every name of MEASURED as the mean (None where no run has it), `top1_std` (the sample's standard
    deviation, None for one seed), `seeds`, `best_epoch` (one for each seed), `control`, `spike_driven`, `learned`
    (None: not known), `chance` (percent that guessing gives), `board` (which test images; rows with the same are
    compared), `verdict`, `against_random`, `marks` (words of warning), and its finished `runs`.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(run["row"], []).append(run)
    rows = [_row(key, found) for key, found in groups.items() if any(run["status"] == "done" for run in found)]
    _assign_boards(rows)
    rows.sort(key=lambda row: (row["dataset"], row["learned"] is False, row["top1"] is None, -(row["top1"] or 0)))
    for row in rows:
        alike = [other for other in rows if other["board"] == row["board"] and other["learned"] is not False]
        row["verdict"] = _verdict(row, alike)
        row["against_random"] = _against_control(row, [other for other in rows if other["board"] == row["board"]])
    return rows


def _row(key: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    done = sorted((run for run in runs if run["status"] == "done"), key=lambda run: run["seed"])
    others = [run for run in runs if run["status"] != "done"]
    first, summaries = done[0], [run["summary"] for run in done]
    spec, found = parse(first["spec"]), [each for summary in summaries if (each := score_of(summary))]
    copies = {run["seed"] for run in repeated(done)}  # of another seed's run: no further evidence
    scores = [finite(run["summary"].get("top1")) for run in done if run["seed"] not in copies]
    scores = [score for score in scores if score is not None]
    learned = above_chance(found) if found else None
    driven = {summary.get("spike_driven") for summary in summaries}
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
        "epochs": first["summary"].get("epochs"),
        "seeds": [run["seed"] for run in done],
        **{name: _mean(summary.get(name) for summary in summaries) for name in MEASURED},
        "best_epoch": [epoch for summary in summaries if (epoch := summary.get("best_epoch")) is not None],
        "top1_std": statistics.stdev(scores) if len(scores) > 1 else None,
        "scores": scores,
        "control": _part(first, spec, "attention") in CONTROLS,
        "learned": learned,
        "chance": max(100 * each.chance for each in found) if found else None,
        "test_images": max(each.images for each in found) if found else None,
        "data": data_contents(done),
        "failed": any(run["status"] == "failed" for run in others),
        "spike_driven": None if learned is False or None in driven else all(driven),
        "marks": ([NOT_LEARNED] if learned is False else []) + row_marks(done, others),
        "runs": done,
    }


def _assign_boards(rows: list[dict[str, Any]]) -> None:
    """Name, in each row's `board`, the test images that it stands for: rows with the same name are compared.

    That is the data set; its first images alone where the suite asks for so many; its content where rows of one data
    set have different contents. A row whose own runs differ in content is compared with none.
    """
    known: dict[str, set[str]] = {}
    for row in rows:
        images = row["settings"].get("test_images")
        row["board"] = row["dataset"] + (f", {images} test images" if images else "")
        known.setdefault(row["board"], set()).update(row["data"])
    for row in rows:
        if len(row["data"]) > 1:
            row["board"] += f", row {row['row']}"
        elif len(known[row["board"]]) > 1:
            content = next(iter(row["data"]), "unknown")
            row["board"] += f", data {content}"
            row["marks"].append(f"compared only on the same data: {content}")


def _verdict(row: dict[str, Any], alike: list[dict[str, Any]]) -> str:
    """What a row's accuracy is worth beside the highest among `alike`, the rows on its test images that learned.

    "best" only where the highest mean exceeds every other by more than the spread, else "highest mean".
    """
    if row["learned"] is False:
        return NOT_LEARNED
    if row["top1"] is None:
        return "no accuracy"
    highest = next((o for o in alike if len(o["scores"]) > 1 and not o["failed"] and len(o["data"]) < 2), None)
    if highest is None or row is not highest:
        return compare(row, highest) if highest else "one seed" if len(row["scores"]) < 2 else "not compared"
    rivals = [other for other in alike if other is not row and other["scores"]]
    if not rivals:
        return "not compared"
    return "best" if all(_is_below(other, row) for other in rivals) else "highest mean"


def _is_below(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether a row's accuracy is below another's by more than the spread; one seed, whether below all its seeds."""
    if len(row["scores"]) < 2:
        return max(row["scores"]) < min(other["scores"])
    return compare(row, other).startswith("-")


def _part(run: dict[str, Any], spec: Spec, kind: str) -> str:
    """The name of a part of the model, its default where the spec leaves it open."""
    full = parse(run["summary"]["full_spec"]) if run["summary"].get("full_spec") else spec
    value = full.args.get(kind)
    return value.name if isinstance(value, Spec) else str(value or "")


def _mean(values: Iterable[float | None]) -> float | None:
    known = [number for value in values if (number := finite(value)) is not None]
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
    if control is None or not row["scores"]:
        return ""
    if row["learned"] is False or control["learned"] is False:
        return NOT_LEARNED if row["learned"] is False else "control did not learn"
    return compare(row, control)


def _without_attention(row: dict[str, Any]) -> tuple[str, str, str]:
    spec = parse(row["spec"])
    kept = {name: value for name, value in spec.args.items() if name != "attention"}
    return str(Spec(spec.name, kept)), row["recipe"], str(row["settings"])


def pareto(rows: list[dict[str, Any]], cost: str, less_is_better: bool = True) -> list[dict[str, Any]]:
    """The rows that no other beats in both top-1 and cost, by rising cost; none that did not learn is among them."""
    sign = 1 if less_is_better else -1
    known = [r for r in rows if r.get("learned") is not False]
    known = [r for r in known if finite(r.get(cost)) is not None and finite(r["top1"]) is not None]
    front: list[dict[str, Any]] = []
    for row in sorted(known, key=lambda r: (sign * r[cost], -r["top1"])):
        if not front or row["top1"] > front[-1]["top1"]:
            front.append(row)
    return front
