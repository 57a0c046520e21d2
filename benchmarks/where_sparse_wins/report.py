"""The tables and the picture of where sparse wins.

print(markdown(result))       # by density, by layer, and the energies; the parts that were measured
by_density(rows)[0]           # {"images": 64, "density": 0.01, "layers": 25, "faster": 25, "least": 3.1, ...}
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

COLORS = {"bits": "#c54", "tables": "#47a", "chosen": "#222"}


def speed(row: dict[str, Any], way: str = "chosen") -> float:
    """How many times faster than torch's dense convolution."""
    return row["seconds"]["dense"] / row["seconds"][way]


def by_density(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over all layers, for each number of images and density: how many times faster than dense the library is.

    `least`, `median` and `most`, and `slowest`, the name of the layer of `least`; `faster`, in how many layers; `lost`,
    what the choice loses at most: seconds of chosen / of the faster way - 1.
    """
    found = []
    for images, density in dict.fromkeys((row["images"], row["density"]) for row in rows):
        here = [row for row in rows if (row["images"], row["density"]) == (images, density)]
        slowest = min(here, key=speed)
        seconds = [row["seconds"] for row in here]
        found.append(
            {
                "images": images,
                "density": density,
                "layers": len(here),
                "faster": sum(speed(row) > 1 for row in here),
                "least": speed(slowest),
                "median": statistics.median(map(speed, here)),
                "most": max(map(speed, here)),
                "slowest": slowest["name"],
                "lost": max(s["chosen"] / min(s["bits"], s["tables"]) - 1 for s in seconds),
            }
        )
    return found


def crossover(densities: Sequence[float], ratios: Sequence[float]) -> float | None:
    """The density at which a ratio of seconds that grows with it first reaches 1; None where it stays below.

    Between two densities a line joins the logarithms. A ratio that begins at 1 or more gives the first density.
    """
    points = list(zip(densities, ratios, strict=True))
    if points[0][1] >= 1:
        return points[0][0]
    for (d0, r0), (d1, r1) in pairwise(points):
        if r1 >= 1:
            return d0 * (d1 / d0) ** (-math.log(r0) / (math.log(r1) - math.log(r0)))
    return None


def crossovers(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each layer and number of images: from which density on tables are faster than bits, and dense than either."""
    found = []
    for name, images in dict.fromkeys((row["name"], row["images"]) for row in rows):
        here = sorted((r for r in rows if (r["name"], r["images"]) == (name, images)), key=lambda r: r["density"])
        densities, seconds = [row["density"] for row in here], [row["seconds"] for row in here]
        found.append(
            {
                "name": name,
                "images": images,
                "models": here[0]["models"],
                "dense_seconds": statistics.median(s["dense"] for s in seconds),
                "tables_from": crossover(densities, [s["bits"] / s["tables"] for s in seconds]),
                "dense_from_bits": crossover(densities, [s["bits"] / s["dense"] for s in seconds]),
                "dense_from": crossover(densities, [s["chosen"] / s["dense"] for s in seconds]),
            }
        )
    return found


def markdown(result: dict[str, Any]) -> str:
    """The tables of the parts that were measured, with the machine in the first line."""
    instruction_set = result["instruction_set"] or "no kernels"
    machine = f"{result['device']}, kernels {instruction_set}, torch's {result['torch_instruction_set']}"
    lines = [f"{machine}, {result['threads']} threads, torch {result['torch']}, medians of {result['rounds']} rounds."]
    if "layers" in result:
        lines += ["", *_density_table(result["by_density"])]
        for images in dict.fromkeys(row["images"] for row in result["layers"]):
            lines += ["", *_layer_table(result, images)]
    if "energy" in result:
        lines += ["", *_energy_table(result["energy"])]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _percent(part: float | None, otherwise: str = "never") -> str:
    return otherwise if part is None else f"{100 * part:.3g} %"


def _density_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Times faster than dense over all layers, a line per number of images and density."""
    head = ["images x T", "spikes", "faster", "least", "median", "most", "least in", "lost by the choice"]
    cells = [
        [
            *(f"{row['images']}", _percent(row["density"]), f"{row['faster']} of {row['layers']}"),
            *(f"{row[name]:.2f}" for name in ("least", "median", "most")),
            *(row["slowest"], _percent(max(0.0, row["lost"]))),
        ]
        for row in rows
    ]
    return ["Times faster than torch's dense convolution, as the library chooses:", "", *_table(head, cells)]


def _layer_table(result: dict[str, Any], images: int) -> list[str]:
    """Times faster than dense by bits / by tables / as chosen, a line per layer."""
    rows = [row for row in result["layers"] if row["images"] == images]
    densities = sorted({row["density"] for row in rows})
    head = ["layer", "of", "dense, ms", *map(_percent, densities), "tables from", "dense beats bits from"]
    cells = []
    for found in (c for c in result["crossovers"] if c["images"] == images):
        here = {row["density"]: row for row in rows if row["name"] == found["name"]}
        ways = [[f"{speed(here[density], way):.2f}" for way in COLORS] for density in densities]
        cells.append(
            [
                *(found["name"], ", ".join(found["models"]), f"{1e3 * found['dense_seconds']:.2f}"),
                *(" / ".join(numbers) for numbers in ways),
                *(_percent(found["tables_from"]), _percent(found["dense_from_bits"])),
            ]
        )
    title = f"{images} images x T, times faster than dense: by bits / by tables / as the library chooses:"
    return [title, "", *_table(head, cells)]


def _energy_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Energies and break-even rates, a column per model."""
    head = ["spiking against dense", *(row["model"] for row in rows)]
    cells = [["**spikes per input and step, measured**", *(_percent(row["rate"]) for row in rows)]]
    for name in rows[0]["comparisons"]:
        each = [row["comparisons"][name] for row in rows]
        rates = [c["break_even_rate"] for c in each]
        cells.append([f"break-even: {name}", *(_percent(rate if rate > 0 else None) for rate in rates)])
        cells.append(["mJ, spiking / dense", *(f"{c['spiking_mj']:.3g} / {c['dense_mj']:.3g}" for c in each)])
    origins = dict.fromkeys(f"weights {row['origin']['weights']}; images {row['origin']['images']}" for row in rows)
    title = "Energy per image at 45 nm, against a dense quantised network of the same shape; break-even in spikes per "
    return [f"{title}input and step ({'; '.join(origins)}):", "", *_table(head, cells)]


def plot(result: dict[str, Any], path: Path) -> None:
    """Times faster over the density: the median over layers, and the range from least to most."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = result["layers"]
    numbers = list(dict.fromkeys(row["images"] for row in rows))
    kernels = sorted({row["layer"]["kernel"] for row in rows}, reverse=True)
    size = (5 * len(numbers), 0.8 + 3.2 * len(kernels))
    figure, axes = plt.subplots(len(kernels), len(numbers), figsize=size, squeeze=False, sharey=True)
    for axis, (kernel, images) in zip(axes.flat, [(k, n) for k in kernels for n in numbers], strict=True):
        here = [row for row in rows if (row["layer"]["kernel"], row["images"]) == (kernel, images)]
        densities = sorted({row["density"] for row in here})
        for way, color in COLORS.items():
            speeds = [[speed(row, way) for row in here if row["density"] == density] for density in densities]
            axis.plot(densities, list(map(statistics.median, speeds)), marker="o", color=color, label=way)
            axis.fill_between(densities, list(map(min, speeds)), list(map(max, speeds)), color=color, alpha=0.12)
        axis.axhline(1, color="k", linestyle="--", linewidth=1)
        title = f"{kernel} x {kernel}, {images} images x T, {len(here) // max(1, len(densities))} layers"
        axis.set(xscale="log", yscale="log", title=title)
    for axis in axes[-1]:
        axis.set_xlabel("part of the input that is not zero")
    for axis in axes[:, 0]:
        axis.set_ylabel("times faster than dense")
    axes[0, 0].legend()
    machine = f"{result['device']}, {result['instruction_set']}, {result['threads']} threads, torch {result['torch']}"
    figure.suptitle(machine, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
