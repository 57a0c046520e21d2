"""The table and the picture of the engines' times.

print(table(result["tasks"][0]))
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("numpy", "onnx", "onnxscript", "onnxruntime", "openvino", "spikingjelly")


def instruction_set() -> str:
    """The widest vectors that torch uses here, and whether the processor multiplies bfloat16: "AVX512, bf16"."""
    bfloat16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.backends.cpu.get_cpu_capability() + (", bf16" if bfloat16 else "")


def versions() -> dict[str, str]:
    """The version of each library that is installed."""
    installed = {d.name.lower(): d.version for d in importlib.metadata.distributions()}
    return {name: installed[name] for name in PACKAGES if name in installed}


def table(task: dict[str, Any]) -> str:
    """The rows of one task, a line for each contestant."""
    origin = task["origin"]
    lines = [
        f"{task['model']}, batch {task['batch']}; weights {origin['weights']}; images {origin['images']}; "
        f"logits in float64 up to {task['largest_logit']:.3g}, over the images +- {task['logit_spread']:.2g}",
        f"{'':18}{'ms':>9}{'least':>9}{'times ours':>12}{'difference':>12}{'same class':>12}",
    ]
    for name, row in task["contestants"].items():
        if "failed" in row:
            lines.append(f"{name:18} {row['failed']}")
            continue
        ratio = f"{row['over_ours']:.2f}" if "over_ours" in row else "-"
        lines.append(
            f"{name:18}{1e3 * row['seconds']:9.2f}{1e3 * row['min_seconds']:9.2f}{ratio:>12}"
            f"{row['largest_difference']:12.1e}{row['same_class']:12.1%}  {row['note']}"
        )
    return "\n".join(lines)


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw the milliseconds of each contestant: a row of panels for each model, a column for each batch size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    models, batches = (list(dict.fromkeys(task[key] for task in result["tasks"])) for key in ("model", "batch"))
    figure, axes = plt.subplots(
        len(models), len(batches), figsize=(6 * len(batches), 0.6 + 2.2 * len(models)), squeeze=False
    )
    for task in result["tasks"]:
        axis = axes[models.index(task["model"])][batches.index(task["batch"])]
        rows = {name: row for name, row in task["contestants"].items() if "seconds" in row}
        taken = [1e3 * row["seconds"] for row in rows.values()]
        axis.barh(list(rows), taken, color=["#47a" if name.startswith("ours") else "#999" for name in rows])
        for place, value in enumerate(taken):
            axis.text(value, place, f" {value:.3g}" if value < 100 else f" {value:.0f}", va="center", fontsize=8)
        axis.invert_yaxis()
        axis.set(title=f"{task['model']}, batch {task['batch']}", xlim=(0, 1.2 * max(taken, default=1)))
    for axis in axes[-1]:
        axis.set_xlabel("milliseconds per batch")
    figure.suptitle(
        f"{result['device']}, {result['instruction_set']}, {result['threads']} threads, torch {result['torch']}",
        fontsize=9,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=130)
    plt.close(figure)
