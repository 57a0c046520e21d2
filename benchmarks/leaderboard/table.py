"""Make the table's rows: runs joined over seeds, with the spread, and a verdict on each difference in accuracy.

    rows = join_seeds(store.runs("smoke"))
    rows[0]["label"], rows[0]["top1"], rows[0]["top1_std"], rows[0]["verdict"]
    compare(rows[0], rows[1])                # "+1.23" percentage points, "within the spread" or "one seed"

A row is the runs of one spec, data set, recipe and settings, which differ in their seed alone. Two rows differ where
the difference of their mean top-1 exceeds Welch's 95 % interval over seeds. Rows are compared only if they were tested
on the same images, and never with a row that did not learn (chance.py): such a network may be small, silent and
spike-driven, and is worth nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from scipy import stats

from benchmarks.leaderboard.chance import above_chance, finite_or_none, score_of
from benchmarks.leaderboard.marks import data_contents, repeated, row_marks
from registry import Spec, parse

# Keys of a run's summary that a row averages over seeds.
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
    """The figures that others published, each with its `source` and `where` it is in there."""
    return yaml.safe_load(PUBLISHED.read_text())


def join_seeds(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join the runs that differ in their seed alone into one row, if one of them is finished.

    Rows are sorted by data set and falling accuracy; rows without accuracy follow, then rows that did not learn. A row
    has every name of MEASURED as the mean over seeds (None where no run has it), and

        top1_std         the sample's standard deviation over seeds; None for one seed
        scores           the top-1 of each seed
        seeds            the seeds that are done; best_epoch: the best epoch of each
        control          the attention is one of CONTROLS
        learned          above chance, see chance.py; None: not known
        chance           the accuracy of guessing, in percent
        test_images      the number of test images
        spike_driven     every product after the first layer has spikes as input; None: not known, or not learned
        board            which test images: rows with the same board are compared
        verdict          the accuracy beside the highest on the board
        against_random   the accuracy beside that of the same model with random attention
        marks            why the row may mislead, see marks.py
        runs             its finished runs
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(run["row"], []).append(run)
    rows = [_row(key, group) for key, group in groups.items() if any(run["status"] == "done" for run in group)]
    _assign_boards(rows)
    rows.sort(key=lambda row: (row["dataset"], row["learned"] is False, row["top1"] is None, -(row["top1"] or 0)))
    for row in rows:
        alike = [other for other in rows if other["board"] == row["board"] and other["learned"] is not False]
        row["verdict"] = _verdict(row, alike)
        row["against_random"] = _against_control(row, [other for other in rows if other["board"] == row["board"]])
    return rows


def _row(key: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of these runs, without what needs other rows."""
    done = sorted((run for run in runs if run["status"] == "done"), key=lambda run: run["seed"])
    others = [run for run in runs if run["status"] != "done"]
    first, summaries = done[0], [run["summary"] for run in done]
    spec, tests = parse(first["spec"]), [score for summary in summaries if (score := score_of(summary))]
    copies = {run["seed"] for run in repeated(done)}  # a copy of another seed's run tells nothing more
    scores = [finite_or_none(run["summary"].get("top1")) for run in done if run["seed"] not in copies]
    scores = [score for score in scores if score is not None]
    learned = above_chance(tests) if tests else None
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
        "chance": max(100 * score.chance for score in tests) if tests else None,
        "test_images": max(score.images for score in tests) if tests else None,
        "data": data_contents(done),
        "failed": any(run["status"] == "failed" for run in others),
        "spike_driven": None if learned is False or None in driven else all(driven),
        "marks": ([NOT_LEARNED] if learned is False else []) + row_marks(done, others),
        "runs": done,
    }


def _assign_boards(rows: list[dict[str, Any]]) -> None:
    """Write into each row's `board` the name of its test images: rows with the same name are compared.

    The name is the data set, with the number of test images where the suite limits it, and with the digest of the
    data where rows of one data set have different data. A row whose own runs differ in data has a board of its own.
    """
    contents: dict[str, set[str]] = {}
    for row in rows:
        images = row["settings"].get("test_images")
        row["board"] = row["dataset"] + (f", {images} test images" if images else "")
        contents.setdefault(row["board"], set()).update(row["data"])
    for row in rows:
        if len(row["data"]) > 1:
            row["board"] += f", row {row['row']}"
        elif len(contents[row["board"]]) > 1:
            content = next(iter(row["data"]), "unknown")
            row["board"] += f", data {content}"
            row["marks"].append(f"compared only on the same data: {content}")


def _verdict(row: dict[str, Any], alike: list[dict[str, Any]]) -> str:
    """The verdict on a row's accuracy beside the highest of `alike`, the rows on its test images that learned.

    The highest mean is "best" only if it exceeds every other by more than the spread, else "highest mean".
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
    """Whether a row is below another by more than the spread; a row of one seed: whether it is below all its seeds."""
    if len(row["scores"]) < 2:
        return max(row["scores"]) < min(other["scores"])
    return compare(row, other).startswith("-")


def _part(run: dict[str, Any], spec: Spec, kind: str) -> str:
    """The name of a part of the model; the default if the spec does not name one."""
    full = parse(run["summary"]["full_spec"]) if run["summary"].get("full_spec") else spec
    value = full.args.get(kind)
    return value.name if isinstance(value, Spec) else str(value or "")


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of the finite values; None if there is none."""
    numbers = [number for value in values if (number := finite_or_none(value)) is not None]
    return statistics.fmean(numbers) if numbers else None


def compare(row: dict[str, Any], other: dict[str, Any]) -> str:
    """Compare the mean top-1 of two rows by Welch's 95 % interval over seeds.

    With means m, variances s^2 of n seeds each: d = m_1 - m_2, v_i = s_i^2 / n_i, and nu = (v_1 + v_2)^2 /
    (v_1^2 / (n_1 - 1) + v_2^2 / (n_2 - 1)) degrees of freedom. Returns "within the spread" if |d| is at most
    t_{0.975, nu} sqrt(v_1 + v_2), else d in percentage points, such as "+1.23"; "one seed" if a row has one seed.
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
    """Compare a row with the same model with random attention: a gain comes from training the queries and keys."""
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
    """The row's spec without its attention, recipe and settings."""
    spec = parse(row["spec"])
    kept = {name: value for name, value in spec.args.items() if name != "attention"}
    return str(Spec(spec.name, kept)), row["recipe"], str(row["settings"])


def pareto(rows: list[dict[str, Any]], cost: str, less_is_better: bool = True) -> list[dict[str, Any]]:
    """The rows that learned and that no other beats in both top-1 and cost, by rising cost (or falling benefit)."""
    sign = 1 if less_is_better else -1
    rows = [r for r in rows if r.get("learned") is not False]
    rows = [r for r in rows if finite_or_none(r.get(cost)) is not None and finite_or_none(r["top1"]) is not None]
    front: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda r: (sign * r[cost], -r["top1"])):
        if not front or row["top1"] > front[-1]["top1"]:
            front.append(row)
    return front
