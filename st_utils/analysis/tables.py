"""Show a profile: as a table of text, as profile.json, and as a picture.

found = profile(model, images)
print(table(found))                             # MACs, ACs, mJ, ms and firing rate of each layer, per image
write(found, Path("runs/mine"), "spikformer")   # profile.json and profile.png
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from st_utils.files import refusal, write_atomic

COLUMNS = {
    "name": "layer",
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
RATES = ("firing_rate", "sparsity")
COUNTS = ("macs", "acs", "parameters")


def table(profile: dict[str, Any], audit: bool = False) -> str:
    """Format a profile as text: a row per layer, then the sums. An audit shows only what enters each layer."""
    names = ("name", "kind", "inputs") if audit else tuple(COLUMNS)
    layers = [layer for layer in profile["layers"] if not (audit and layer["kind"] == "node")]
    lines = [[COLUMNS[name] for name in names], *([_cell(layer, name) for name in names] for layer in layers)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    text = [
        "  ".join(
            cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join(line.rstrip() for line in [*text, "", *_sums(profile["totals"])])


def _cell(layer: dict[str, Any], name: str) -> str:
    """The text of one figure of a layer; empty where the layer has no such figure."""
    value = layer[name]
    if value is None or (layer["kind"] == "node" and name in (*COUNTS, "energy_mj")):
        return ""
    if isinstance(value, str):
        return value
    return f"{value:.3f}" if name in RATES or name == "ms" else f"{value:,.0f}" if name in COUNTS else f"{value:.3g}"


def _sums(totals: dict[str, Any]) -> list[str]:
    """The lines below the table: sums per image, whether the model is spike-driven, silent layers."""
    rate = totals["firing_rate"]
    spiking = "yes" if totals["spike_driven"] else "no: " + ", ".join(totals["not_spike_driven"])
    silent = [f"no spike reached {', '.join(totals['silent'])}"] if totals["silent"] else []
    return [
        f"per image: {totals['macs']:,.0f} MACs, {totals['sops']:,.0f} synaptic operations (ACs), "
        f"{totals['energy_mj']:.4g} mJ, with memory traffic {totals['energy_memory_mj']:.4g} mJ, "
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
    draw(profile, folder / "profile.png", title)
    return path


def draw(profile: dict[str, Any], path: Path, title: str) -> None:
    """Draw the firing rate, energy and time of each layer, as a PNG."""
    from matplotlib.figure import Figure  # slow to import, and used here only; pyplot's backend stays the caller's

    panels = {"firing_rate": "spikes per neuron per step", "energy_mj": "mJ per image", "ms": "ms per image"}
    layers = profile["layers"]
    figure = Figure(figsize=(15, max(4, 0.2 * len(layers))))
    axes = figure.subplots(1, len(panels), sharey=True)
    for axis, (name, words) in zip(axes, panels.items(), strict=True):
        axis.barh([f"{layer['name']} ({layer['kind']})" for layer in layers], [layer[name] or 0 for layer in layers])
        axis.set_xlabel(words)
        axis.grid(axis="x", alpha=0.3)
    axes[0].invert_yaxis()
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
