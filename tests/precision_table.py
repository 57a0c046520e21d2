"""Prints the tables of docs/precision.md: what float32 makes of the golden files, plain and fused.

python -m tests.precision_table              # about a minute and a half on one core
python -m tests.precision_table 'sdt*'
"""

from __future__ import annotations

import sys

import torch

from tests import golden_numbers as golden
from tests.single_precision import (
    FILES,
    FOLDED,
    FUSED,
    ORDERS,
    Difference,
    Golden,
    differences,
    firing_differs,
    furthest,
    relative,
)

WAYS = ("plain", *FUSED, *FOLDED)


def cell(largest: float, share: float, spikes: int) -> str:
    return f"{largest:.1e}, {share:.1e}, {spikes:,}"


def evaluation(model: Golden, found: dict[str, Difference]) -> list[list[str]]:
    """The rows of a golden file: beside float64, and beside the authors' float32."""
    neurons = sum(call.spikes.numel() for call in found["plain"].free.watch.calls)
    rows = [[cell(d.furthest, d.relative, d.spikes) for d in (found[name] for name in WAYS)]]
    single, theirs = model.single, "-"
    if single:
        own, wanted = single["to_float64"], golden.tensor(single["eval"]["output"])
        theirs = cell(own["max_abs"], own["relative"], own["spikes_that_differ"])
        free = [found[name].free for name in WAYS]
        rows.append(
            [
                cell(furthest(r.output, wanted), relative(r.output, wanted), firing_differs(r, model.numbers, single))
                for r in free
            ]
        )
    heads = [f"`{model.name}`", f"{neurons:,}", "float64", theirs], ["", "", "the authors' float32", "0"]
    return [[*head, *row] for head, row in zip(heads, rows, strict=False)]


def training(model: Golden, found: dict[str, Difference]) -> list[str]:
    neurons = sum(call.spikes.numel() for call in found["plain"].free.watch.calls)
    ways = [found[name] for name in ("plain", *FUSED)]
    outputs = [cell(d.furthest, d.relative, d.spikes) for d in ways]
    return [f"`{model.name}`", f"{neurons:,}", *outputs, *(f"{d.gradients[0]:.1e}, {d.gradients[1]:.1e}" for d in ways)]


def near(model: Golden, mode: str, found: dict[str, Difference]) -> list[list[str]]:
    """The ways in which a spike differs when every layer gets float64's spikes."""
    rounding = max(found[name].rounding for name in ORDERS)
    by_flips: dict[tuple[int, str], list[str]] = {}
    for name, d in found.items():
        if d.flips:
            by_flips.setdefault((d.flips, f"{d.margin:.1e}"), []).append(name)
    return [
        [f"`{model.name}`", mode, "; ".join(names), str(flips), margin, f"{rounding:.1e}"]
        for (flips, margin), names in by_flips.items()
    ]


def markdown(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def main(patterns: list[str]) -> None:
    torch.set_num_threads(1)
    rows: dict[str, list[list[str]]] = {"eval": [], "train": [], "near": []}
    for path in golden.files(*patterns) if patterns else FILES:
        model = Golden(path)
        for mode in ("eval", "train"):
            found = differences(model, mode == "train")
            rows[mode] += evaluation(model, found) if mode == "eval" else [training(model, found)]
            rows["near"] += near(model, mode, found)
    head = ["golden file", "spikes"]
    tables = {
        "Evaluation": ([*head, "beside", "the authors' float32", *WAYS], rows["eval"]),
        "Training": ([*head, *(w := ["plain", *FUSED]), *(f"gradients, {name}" for name in w)], rows["train"]),
        "Spikes at the threshold": (
            ["golden file", "mode", "way", "neurons", "farthest potential", "rounding"],
            rows["near"],
        ),
    }
    for title, (columns, table) in tables.items():
        sys.stdout.write(f"## {title}\n\n{markdown(columns, table)}\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
