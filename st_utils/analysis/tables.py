"""Show a profile: as a table of text, as profile.json, and as a picture.

found = profile(model, images)
print(table(found))         # by layer, block, time step and chunk, per image
write(found, Path("runs/mine"), "spikformer")  # profile.json and profile.png
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from st_utils.analysis.layer_names import ROLES, label
from st_utils.files import refusal, write_atomic
from st_utils.pictures.profile import draw_profile

COLUMNS = {
    "label": "layer",
    "kind": "kind",
    "inputs": "enters",
    "firing_rate": "firing",
    "sparsity": "sparsity",
    "macs": "MACs",
    "acs": "ACs",
    "parameters": "params",
    "energy_mj": "mJ",
    "energy_memory_mj": "with memory",
    "ms": "ms",
}
BLOCK_COLUMNS = ("label", "firing_rate", *ROLES, "macs", "acs", "energy_mj", "energy_memory_mj", "ms")
RATES = ("firing_rate", "sparsity", *ROLES)
COUNTS = ("macs", "acs", "parameters")
ENERGIES = ("energy_mj", "energy_memory_mj")
NJ_PER_MJ = 1e6
MOST_STEPS = 16  # columns of the table of steps; with more steps, each column is the mean of several
NOTE = "(no time by step or chunk: a layer computes all time steps in one call)"


def table(profile: dict[str, Any], audit: bool = False) -> str:
    """Format a profile as text: a row per layer, per block, per time step and chunk, then the sums.

    An audit shows only what enters each layer.
    """
    layers = profile["layers"]
    if audit:
        products = [layer for layer in layers if layer["kind"] != "node"]
        rows = _figures(products, ("label", "kind", "inputs"))
        return "\n".join([*_aligned(rows, texts=3), "", *_sums(profile["totals"])])
    parts = [_aligned(_figures(layers, tuple(COLUMNS)), texts=3), _blocks(profile["blocks"]), _steps(profile)]
    parts += [_chunks(layers)]
    lines = [line for part in parts for line in ([*part, ""] if part else [])]
    return "\n".join([*lines, *_sums(profile["totals"])])


def _aligned(rows: list[list[str]], texts: int) -> list[str]:
    """The rows as lines; the first `texts` columns are aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(c.ljust(w) if i < texts else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        .rstrip()
        for row in rows
    ]  # fmt: skip


def _figures(rows: list[dict[str, Any]], names: tuple[str, ...]) -> list[list[str]]:
    """A table of these figures with its header; energy in nJ where some would be 0.000 mJ."""
    units = {name: _unit([row[name] for row in rows]) for name in ENERGIES if name in names}
    head = [COLUMNS.get(name, name).replace("mJ", units.get(name, "mJ")) for name in names]
    head = [
        f"{word}, {units[name]}" if name == "energy_memory_mj" else word for name, word in zip(names, head, strict=True)
    ]
    return [head, *([_cell(row, name, units.get(name, "mJ")) for name in names] for row in rows)]


def _unit(energies: list[float]) -> str:
    return "nJ" if any(0 < energy < 0.0005 for energy in energies) else "mJ"


def _cell(row: dict[str, Any], name: str, unit: str = "mJ") -> str:
    """The text of one figure of a row; empty where it has no such figure."""
    value = row[name]
    if value is None or (row.get("kind") == "node" and name in (*COUNTS, "energy_mj")):
        return ""
    if isinstance(value, str):
        return value
    if name in ENERGIES:
        value *= NJ_PER_MJ if unit == "nJ" else 1
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{value:.3f}" if name in RATES or name == "ms" else f"{value:,.0f}"


def _blocks(blocks: list[dict[str, Any]]) -> list[str]:
    """Two tables of blocks: firing rates with the whole block's costs, and time, both with the roles apart."""
    lines = []
    for figure, words in (("firing_rate", "firing rates"), ("ms", "ms per image")):
        roles = [{role: block["roles"].get(role, {}).get(figure) for role in ROLES} for block in blocks]
        rows = [block | apart for block, apart in zip(blocks, roles, strict=True)]
        names = BLOCK_COLUMNS if figure == "firing_rate" else ("label", "ms", *ROLES)
        shown = [name for name in names if name not in ROLES or any(row[name] is not None for row in rows)]
        found = _figures(rows, tuple(shown))
        found[0][0] = "block"
        lines += ["", f"by block: {words}, of q, k, v, the rest of the attention and others apart"]
        lines += _aligned(found, texts=1)
    return lines[1:]


def _steps(profile: dict[str, Any]) -> list[str]:
    """The table of time steps: the firing rate of each layer of neurons in each step."""
    rows = [layer for layer in profile["layers"] if layer["firing_by_step"]]
    if not rows:
        return []
    each = -(-profile["steps"] // MOST_STEPS)
    spans = [(start, min(start + each, profile["steps"])) for start in range(0, profile["steps"], each)]
    heads = [f"{start + 1}" if end == start + 1 else f"{start + 1}-{end}" for start, end in spans]
    lines = [["step", *heads]]
    told = [row for row in (*profile["blocks"], *rows) if row["firing_by_step"]]
    for row in told:
        rates = [sum(row["firing_by_step"][start:end]) / (end - start) for start, end in spans]
        lines += [[row["label"], *(f"{rate:.3f}" for rate in rates)]]
    untold = [row["label"] for row in profile["layers"] if row["kind"] == "node" and not row["firing_by_step"]]
    notes = [f"(steps can't be told apart in {', '.join(untold)})"] if untold else []
    return ["by time step: firing rates of blocks and of layers", *_aligned(lines, texts=1), *notes, NOTE]


def _chunks(layers: list[dict[str, Any]]) -> list[str]:
    """The table of chunks: the firing rates of the attentions that mix several time steps."""
    rows = [layer for layer in layers if layer.get("firing_by_chunk")]
    if not rows:
        return []
    widest = max(len(row["firing_by_chunk"]) for row in rows)
    sizes = [len(row["firing_by_step"]) // len(row["firing_by_chunk"]) for row in rows]
    heads = [f"{i * sizes[0] + 1}-{(i + 1) * sizes[0]}" if len(set(sizes)) == 1 else f"{i + 1}" for i in range(widest)]
    lines = [["steps" if len(set(sizes)) == 1 else "chunk", *heads]]
    for row in rows:
        rates = [f"{rate:.3f}" for rate in row["firing_by_chunk"]]
        lines.append([row["label"], *rates, *[""] * (widest - len(rates))])
    return ["by chunk of the attention: firing rates", *_aligned(lines, texts=1)]


def _energy(mj: float) -> str:
    return f"{mj * NJ_PER_MJ:.4g} nJ" if 0 < mj < 0.0005 else f"{mj:.4g} mJ"


def _sums(totals: dict[str, Any]) -> list[str]:
    """The last lines: sums per image, whether the model is spike-driven, silent layers."""
    rate = totals["firing_rate"]
    offenders = [f"{label(path)} ({kind}" for path, _, kind in (o.partition(" (") for o in totals["not_spike_driven"])]
    spiking = "yes" if totals["spike_driven"] else "no: " + ", ".join(offenders)
    silent = [f"no spike reached {', '.join(map(label, totals['silent']))}"] if totals["silent"] else []
    return [
        f"per image: {totals['macs']:,.0f} MACs, {totals['sops']:,.0f} synaptic operations (ACs), "
        f"{_energy(totals['energy_mj'])}, with memory traffic {_energy(totals['energy_memory_mj'])}, "
        f"{totals['ms']:.2f} ms; {totals['parameters']:,} parameters"
        + ("" if rate is None else f"; firing rate {rate:.3f}"),
        f"spike-driven after the first layer: {spiking}",
        *silent,
    ]


def write(profile: dict[str, Any], folder: Path, title: str) -> Path:
    """Write profile.json and profile.png into the folder; return the path of profile.json. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refusal(folder, error) from error
    path = folder / "profile.json"
    write_atomic(path, [json.dumps(profile, indent=1).encode() + b"\n"])
    draw_profile(folder / "profile.png", title, profile)
    return path
