"""Neurons, and batch norm with a neuron, against other libraries' and against a copy of the tensor.

    python -m benchmarks.nodes [--rounds 9] [--threads 2] [--device cpu] [--part main ...] [--out FILE.json] [--quick]

LIF with tau 2, hard reset and a sigmoid surrogate on float32 `[T, 64, N]`, from this zoo, BrainCog (LIFNode,
layer by layer), SpikingJelly 2.0 (multi-step; eager, torch.compile, and on CUDA its Triton kernels) and snnTorch
(Leaky, whose input is not decayed: h = v / 2 + x), all from PyPI, in one process. A round measures each in turn;
medians over the rounds are reported. Before anything is measured, the spikes and gradients of each are compared with
the plain torch definition of the same equation: where they differ, nothing is reported.

The limit is the bytes that must move (forward: input and spikes; backward: input, two gradients) over the bandwidth
of a plain copy measured in the same rounds. `peak_bytes` is the most that forward and backward allocate. On a CPU the
allocator keeps freed memory, for all libraries alike: outputs are new, their pages are not. A plot is saved beside the
JSON, as .png. Parts that are measured in several calls with one --out end up in one file.

Two more rows tell what new memory costs: a copy into memory that is allocated for it, and, on a CPU, this zoo's
kernels called into existing memory, without operator and autograd. `memory_share` is the share of the zoo's time that
the kernels alone do not take. `instruction_set` is that of the kernels, see `ZOO_CPU`; it is in the file's name.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import zoo  # noqa: F401  (registers the parts)
from benchmarks.memory import peak_bytes
from benchmarks.node_contestants import KernelAlone, Run, contestants, definition, pairs
from benchmarks.result import result_path
from benchmarks.timing import alternate
from registry import create
from st_utils.kernels.common.allocator import keep_freed_memory
from st_utils.kernels.common.compiler import instruction_set
from st_utils.kernels.node import cpu
from st_utils.training.environment import environment

MAIN = (4, 64, 64 * 384)  # the layer of the project's speed targets
GRID_STEPS = (1, 2, 4, 8, 16, 32, 64)
GRID_POWERS = range(16, 29, 2)  # elements: 2^16 to 2^28
NORM_SHAPES = ((4, 16, 48, 32, 32), (4, 16, 192, 16, 16), (4, 16, 384, 8, 8), (4, 16, 1536, 8, 8))  # Spikformer-4-384
TENSORS = 24  # of the input's size that must fit the free memory; the contestants need up to 12
FLIPPED = 1e-4  # part of the spikes that rounding at the threshold may change
FRESH_COPY, KERNEL_ALONE = "copy into fresh memory", "zoo kernel, existing memory"


# -- right before fast --------------------------------------------------------------------------------------
def check(name: str, run: Run, reference: Run, x: Tensor) -> None:
    """Raises SystemExit unless spikes and gradients equal the reference's up to rounding at the threshold."""
    grad = torch.randn(x.shape, device=x.device, generator=torch.Generator(x.device).manual_seed(1))
    results = []
    for each in (run, reference):
        leaf = x.clone().requires_grad_()
        spikes = each(leaf)
        results.append((spikes.detach(), torch.autograd.grad(spikes, leaf, grad)[0]))
    (spikes, gradient), (right_spikes, right_gradient) = results
    flipped = (spikes != right_spikes).float().mean().item()
    off = ((gradient - right_gradient).norm() / right_gradient.norm()).item()
    if not (flipped <= FLIPPED and off <= 30 * math.sqrt(flipped) + 1e-4):
        raise SystemExit(f"{name} is not the definition: {flipped:.1e} of the spikes, gradient off by {off:.1e}")


def kernel_alone(x: Tensor, grad: Tensor) -> dict[str, Callable[[], object]]:
    """The kernels without operator, autograd and allocation. Raises SystemExit where they differ from the neuron."""
    alone, leaf = KernelAlone(x), x.clone().requires_grad_()
    spikes = create("node", "lif(backend=cpu)")(leaf)
    right = spikes.detach(), torch.autograd.grad(spikes, leaf, grad)[0]
    if not all(map(torch.equal, alone.both(grad), right)):
        raise SystemExit("the kernels alone give other spikes or gradients than the neuron")
    return {f"{KERNEL_ALONE}/forward": alone.forward, f"{KERNEL_ALONE}/both": partial(alone.both, grad)}


# -- measuring ------------------------------------------------------------------------------------------------
def forward(run: Run, x: Tensor) -> None:
    with torch.no_grad():
        run(x)


def forward_backward(run: Run, x: Tensor, grad: Tensor) -> None:
    torch.autograd.grad(run(x), x, grad)


def measure(runs: dict[str, Run], x: Tensor, rounds: int, device: str, alone: bool = False) -> dict:
    """Times of every contestant on x, beside a copy of x and the limit that its bandwidth sets.

    Args:
        alone: measure this zoo's kernels alone too.
    """
    other, grad, leaf = torch.empty_like(x), torch.randn_like(x), x.clone().requires_grad_()
    works = {"copy": lambda: other.copy_(x), FRESH_COPY: lambda: torch.empty_like(x).copy_(x)}
    works |= kernel_alone(x, grad) if alone else {}
    for name, run in runs.items():
        works[f"{name}/forward"] = partial(forward, run, x)
        works[f"{name}/both"] = partial(forward_backward, run, leaf, grad)
    for work in works.values():  # the first call compiles: it does not count
        work()
    peaks = {name: peak_bytes(works[f"{name}/both"], device) for name in runs}
    times = alternate(works, rounds, device)
    copy, ours = times["copy"], times["zoo/both"]
    figures = {
        name: {
            "forward_seconds": times[f"{name}/forward"],
            "both_seconds": times[f"{name}/both"],
            "forward_over_copy": times[f"{name}/forward"] / copy,
            "both_over_limit": times[f"{name}/both"] / (2.5 * copy),
            "both_over_zoo": times[f"{name}/both"] / ours,
            "peak_bytes": peaks[name],
            "peak_over_input": peaks[name] / x.nbytes,
        }
        for name in runs
    }
    figures[FRESH_COPY] = {"forward_seconds": times[FRESH_COPY], "forward_over_copy": times[FRESH_COPY] / copy}
    if alone:
        figures[KERNEL_ALONE] = of_kernel_alone(times)
    gc.collect()
    return {
        "shape": list(x.shape),
        "rounds": rounds,
        "copy_seconds": copy,
        "gigabytes_per_second": 2 * x.nbytes / copy / 1e9,
        "limit_forward_seconds": copy,
        "limit_both_seconds": 2.5 * copy,
        **figures,
    }


def of_kernel_alone(times: dict[str, float]) -> dict[str, float]:
    """The row of the kernels alone; `memory_share` is the part of the zoo's time that goes to memory and calls."""
    forward_seconds, both_seconds, copy = times[f"{KERNEL_ALONE}/forward"], times[f"{KERNEL_ALONE}/both"], times["copy"]
    return {
        "forward_seconds": forward_seconds,
        "both_seconds": both_seconds,
        "forward_over_copy": forward_seconds / copy,
        "both_over_limit": both_seconds / (2.5 * copy),
        "forward_memory_share": 1 - forward_seconds / times["zoo/forward"],
        "both_memory_share": 1 - both_seconds / times["zoo/both"],
    }


def nodes_at(shape: tuple[int, ...], args: argparse.Namespace) -> dict:
    torch._dynamo.reset()
    runs = contestants(shape[0], args.device, args.quick)
    x = torch.randn(shape, device=args.device) * 1.5 + 0.5
    large = x.numel() > 2**22
    for name, run in runs.items():
        check(name, run, create("node", definition(name)).to(args.device), x[..., :4096] if large else x)
    if large:
        torch._dynamo.reset()  # what is measured is compiled for its own shape, as a layer of a model is
    alone = args.device == "cpu" and cpu.available()
    return measure(runs, x, max(3, args.rounds // 3) if x.numel() > 2**24 else args.rounds, args.device, alone)


def pair_at(shape: tuple[int, ...], args: argparse.Namespace) -> dict:
    torch._dynamo.reset()
    runs, x = pairs(shape[2], shape[0], args.device, args.quick), torch.randn(shape, device=args.device)
    for name, run in runs.items():
        check(f"norm and {name}", run, runs["zoo plain torch"], x)
    return measure(runs, x, args.rounds, args.device)


def sizes(args: argparse.Namespace) -> list[int]:
    """The powers of two whose tensors fit the free memory, up to --largest."""
    pages = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    free = pages if args.device == "cpu" else torch.cuda.mem_get_info()[0]
    return [power for power in GRID_POWERS if power <= args.largest and 4 * TENSORS * 2**power <= free]


PARTS: dict[str, Callable[[argparse.Namespace], object]] = {
    "main": lambda args: nodes_at(MAIN, args),
    "over_steps": lambda args: [nodes_at((t, 64, 2**16 // t), args) for t in GRID_STEPS],
    "over_sizes": lambda args: [nodes_at((4, 64, 2**power // 256), args) for power in sizes(args)],
    "norm_node": lambda args: [pair_at(shape, args) for shape in NORM_SHAPES],
}


# -- the plots ------------------------------------------------------------------------------------------------
def plot(result: dict, path: Path) -> None:
    """Forward, forward and backward (ns per element), and peak memory: over T, over the size, of norm and node."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    across = {"over_steps": "T, 2^22 elements", "over_sizes": "elements, T=4", "norm_node": "channels, norm and node"}
    there = [part for part in across if part in result]
    figure, axes = plt.subplots(3, len(there), figsize=(5 * len(there), 10), sharey="row", squeeze=False)
    measures = {"forward_seconds": "forward, ns per element", "both_seconds": "forward and backward, ns per element"}
    measures["peak_bytes"] = "peak memory, bytes per element"
    for column, part in enumerate(there):
        for axis, (measure, label) in zip(axes[:, column], measures.items(), strict=True):
            lines(axis, result[part], part, measure)
            axis.set(xscale="log", yscale="log", xlabel=across[part])
            axes[0, column].legend(fontsize=6, ncol=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
            if column == 0:
                axis.set_ylabel(label)
    figure.suptitle(f"LIF, float32, {result['device']}, {result['threads']} threads", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def lines(axis, rows: list[dict], part: str, measure: str) -> None:
    """One line per contestant, and the limit."""
    scale = 1 if measure == "peak_bytes" else 1e9

    def of(row: dict) -> int:
        shape = row["shape"]
        return {"over_steps": shape[0], "over_sizes": math.prod(shape), "norm_node": shape[2]}[part]

    names = dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, dict))
    for name in names:
        there = [row for row in rows if measure in row.get(name, ())]
        if not there:
            continue
        y = [row[name][measure] / math.prod(row["shape"]) * scale for row in there]
        axis.plot([of(row) for row in there], y, marker="o", markersize=3, label=name)
    if measure != "peak_bytes":
        limit = [row["limit_" + measure] / math.prod(row["shape"]) * scale for row in rows]
        axis.plot([of(row) for row in rows], limit, "k--", label="limit: bytes over copy bandwidth")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--part", action="append", choices=PARTS, help="measure only this (repeatable)")
    parser.add_argument("--largest", type=int, default=28, help="largest size of over_sizes, as a power of two")
    parser.add_argument("--out", type=Path, help="JSON file (default: in benchmarks/results, named by the machine)")
    parser.add_argument("--quick", action="store_true", help="only this zoo and BrainCog")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    settings = {"threads": args.threads, **environment(args.device)}
    settings["keeps_freed_memory"] = args.device != "cpu" or keep_freed_memory()
    settings["instruction_set"] = instruction_set() if args.device == "cpu" else None
    path = args.out or result_path("nodes", settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = json.loads(path.read_text()) if path.exists() else {}
    result = {part: before[part] for part in PARTS if part in before} if args.part else {}
    for part in args.part or PARTS:
        result[part] = PARTS[part](args)
        path.write_text(json.dumps({**settings, **result}, indent=1) + "\n")
    if result.keys() - {"main"}:
        plot({**settings, **result}, path.with_suffix(".png"))
    print(path.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
