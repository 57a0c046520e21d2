"""Where are sums over spikes faster than dense convolutions on a CPU, and where do they need less energy?

    python -m benchmarks.where_sparse_wins [--threads 2] [--rounds 5] [--out FILE.json]
    python -m benchmarks.where_sparse_wins --part energy --weights runs/NAME          # of a trained run, on its images
    python -m benchmarks.where_sparse_wins --part layers --model "sdt(embed_dim=256)" --batch 1 --density 0.02 0.2

`layers`: each convolution of the models, forward, over random spikes: an input `[T B, C, H, W]` with T = 4, B = 16
and 1, of which 1 to 50 % are 1 and the others 0. Four ways in turn: torch's dense convolution, `bits` (adds a row of
weights per spike), `tables` (adds a row of sums per four inputs) and what the library chooses of these two. All are
compared with the dense product first. `energy`: see energy.py; of untrained models with settled norms on random
images, or of runs.

The JSON, the tables as .md and the plot as .png go to benchmarks/results, named after the machine and the kernels'
instruction set (`ZOO_CPU` chooses another). torch's own is named in the tables; it does not follow ZOO_CPU, but
ATEN_CPU_CAPABILITY=avx2 and, for its convolutions, ONEDNN_MAX_CPU_ISA=AVX2.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.engines.prepare import of_run, of_spec
from benchmarks.result import publish, result_path
from benchmarks.where_sparse_wins.energy import energies
from benchmarks.where_sparse_wins.layers import layers_of, measure
from benchmarks.where_sparse_wins.report import by_density, crossovers, markdown, plot
from registry import SpecError
from st_utils.errors import UserError
from st_utils.kernels.common.allocator import keep_freed_memory
from st_utils.kernels.common.compiler import instruction_set
from st_utils.training.environment import environment

DENSITIES = (0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)
MODELS = ("spikformer", "qkformer", "sdt")  # Spikformer-4-384, QKFormer-4-384, SDT-2-512, as published for 32 x 32
STEPS = 4
PARTS = ("layers", "energy")
IMAGES = 8  # on which operations are counted


def measured_layers(args: argparse.Namespace) -> dict[str, Any]:
    """The part `layers` of the result, with its summaries."""
    rows = [
        measure(layer, STEPS * batch, density, args.rounds) | {"models": models}
        for batch in args.batch
        for layer, models in layers_of(args.model).items()
        for density in args.density
    ]
    return {"layers": rows, "by_density": by_density(rows), "crossovers": crossovers(rows)}


def counted_energies(args: argparse.Namespace) -> dict[str, Any]:
    """The part `energy` of the result."""
    runs = [of_run(path, args.images) for path in args.weights]
    specs = [] if runs else [of_spec(spec, args.images) for spec in args.model]
    return {"energy": [energies(subject) for subject in runs + specs]}


def write(result: dict[str, Any], path: Path) -> None:
    """The tables as .md beside the picture `path`, and the picture where layers were measured."""
    path.with_suffix(".md").write_text(markdown(result) + "\n", encoding="utf-8")
    if "layers" in result:
        plot(result, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--part", action="append", choices=PARTS, help="only this (repeatable)")
    parser.add_argument("--model", nargs="+", default=MODELS, help="specs")
    parser.add_argument("--batch", nargs="+", type=int, default=(16, 1), help="images, each in 4 time steps")
    parser.add_argument("--density", nargs="+", type=float, default=DENSITIES)
    parser.add_argument("--images", type=int, default=IMAGES, help="on which operations are counted")
    parser.add_argument("--weights", nargs="+", default=(), help="folders of trained runs, for `energy`")
    parser.add_argument("--out", type=Path, help="JSON file (default: in benchmarks/results, named by the machine)")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    result: dict[str, Any] = {"rounds": args.rounds, "threads": args.threads, **environment("cpu")}
    result["instruction_set"] = instruction_set()
    result["torch_instruction_set"] = torch.backends.cpu.get_cpu_capability()
    parts = args.part or PARTS
    try:
        result |= counted_energies(args) if "energy" in parts else {}  # first: it takes seconds, and may refuse a model
        result |= measured_layers(args) if "layers" in parts else {}
    except (UserError, SpecError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    publish(result, args.out or result_path("where-sparse-wins", result), write, markdown(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
