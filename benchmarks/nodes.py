"""Neurons, and batch norm with a neuron, against other libraries' and against a copy of the tensor.

    python -m benchmarks.nodes [--rounds 9] [--threads 2] [--device cpu] [--out FILE.json] [--quick]

LIF with tau 2, hard reset and a sigmoid surrogate on float32 `[T, 64, N]`, from this zoo, BrainCog (LIFNode,
layer by layer), SpikingJelly 2.0 (multi-step; eager, torch.compile, and on CUDA its Triton backend) and snnTorch
(Leaky), all from PyPI, in one process. A round measures each in turn; medians over the rounds are reported. The
limit is the bytes that must move (forward: input and spikes; backward: input, two gradients) over the
bandwidth of a plain copy measured in the same rounds. A plot goes beside the JSON, as .png.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import zoo  # noqa: F401  (registers the parts)
from registry import create
from st_utils.kernels.norm_node import norm_then_fire
from st_utils.node.braincog_adapter import neuron_class
from st_utils.training.run_folder import environment

MAIN = (4, 64, 64 * 384)  # the layer that the project's targets are said for
GRID_STEPS = (1, 2, 4, 8, 16, 32, 64)
LONGEST_COMPILED = 16  # torch.compile unrolls SpikingJelly's loop: beyond, compiling takes minutes
Run = Callable[[Tensor], Tensor]


# -- who is measured: functions of [T, ...] -----------------------------------------------------------------
def braincog(steps: int) -> Run:
    node = neuron_class("LIFNode")(threshold=1.0, tau=2.0, step=steps, layer_by_layer=True)

    def run(x: Tensor) -> Tensor:
        node.n_reset()
        return node(x.flatten(0, 1)).view_as(x)

    return run


def spikingjelly(backend: str) -> Run:
    from spikingjelly.activation_based import neuron

    node = neuron.LIFNode(tau=2.0, detach_reset=True, step_mode="m")
    node.backend = "triton" if backend == "triton" else "torch"

    call = torch.compile(node) if backend == "compiled" else node

    def run(x: Tensor) -> Tensor:
        node.reset()
        return call(x)

    return run


def snntorch(device: str) -> Run:
    import snntorch

    node = snntorch.Leaky(beta=0.5, reset_mechanism="zero").to(device)

    def run(x: Tensor) -> Tensor:
        membrane, spikes = torch.zeros_like(x[0]), []
        for current in x:
            spike, membrane = node(current, membrane)
            spikes.append(spike)
        return torch.stack(spikes)

    return run


def contestants(steps: int, device: str, quick: bool) -> dict[str, Run]:
    runs = {"zoo": create("node", "lif").to(device), "zoo plif": create("node", "plif").to(device)}
    runs["zoo plain torch"] = create("node", "lif(backend=torch)").to(device)
    runs["braincog"] = braincog(steps)
    if quick:
        return runs
    runs["spikingjelly"] = spikingjelly("eager")
    if steps <= LONGEST_COMPILED:
        runs["spikingjelly compiled"] = spikingjelly("compiled")
    if device != "cpu":
        runs["spikingjelly triton"] = spikingjelly("triton")
    return runs | {"snntorch": snntorch(device)}


# -- measuring ------------------------------------------------------------------------------------------------
def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], device: str) -> float:
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def forward(run: Run, x: Tensor) -> None:
    with torch.no_grad():
        run(x)


def forward_backward(run: Run, x: Tensor, grad: Tensor) -> None:
    torch.autograd.grad(run(x), x, grad)


def peak_bytes(work: Callable[[], object], device: str) -> int | None:
    """What a call allocates at most, on CUDA."""
    if device == "cpu":
        return None
    work()  # what the first call alone needs, to compile, does not count
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return torch.cuda.max_memory_allocated() - before


def alternate(works: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each; the first two rounds warm up.

    Each is called twice and the second call counts, so that nobody pays for the memory that the one before gave back.
    """
    times = {name: [] for name in works}
    for number in range(rounds + 2):
        for name, work in works.items():
            work()
            taken = seconds(work, device)
            if number > 1:
                times[name].append(taken)
    return {name: statistics.median(taken) for name, taken in times.items()}


def measure(runs: dict[str, Run], x: Tensor, rounds: int, device: str) -> dict:
    """Times of every contestant on x, beside a copy of x and the limit that its bandwidth sets."""
    other, grad, leaf = torch.empty_like(x), torch.randn_like(x), x.clone().requires_grad_()
    works = {"copy": lambda: other.copy_(x)}
    for name, run in runs.items():
        works[f"{name}/forward"] = partial(forward, run, x)
        works[f"{name}/both"] = partial(forward_backward, run, leaf, grad)
    peaks = {name: peak_bytes(work, device) for name, work in works.items()}
    times = alternate(works, rounds, device)
    copy = times.pop("copy")
    result = {
        "shape": list(x.shape),
        "copy_seconds": copy,
        "limit_forward_seconds": copy,
        "limit_both_seconds": 2.5 * copy,
    }
    result["gigabytes_per_second"] = 2 * x.numel() * x.element_size() / copy / 1e9
    for name in runs:
        ours = times["zoo/both"]
        result[name] = {
            "forward_seconds": times[f"{name}/forward"],
            "both_seconds": times[f"{name}/both"],
            "forward_over_copy": times[f"{name}/forward"] / copy,
            "both_over_limit": times[f"{name}/both"] / (2.5 * copy),
            "both_over_zoo": times[f"{name}/both"] / ours,
            "peak_bytes": peaks[f"{name}/both"],
        }
    gc.collect()
    return result


class Pair(nn.Module):
    """Batch norm and a LIF: as one, or one after the other."""

    def __init__(self, channels: int, node: str = "lif", fused: bool = False):
        super().__init__()
        self.norm, self.node, self.fused = nn.BatchNorm2d(channels), create("node", node), fused

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            return norm_then_fire(self.norm, self.node, x)
        return self.node(self.norm(x.flatten(0, 1)).view_as(x))


def norm_node(rounds: int, device: str) -> list[dict]:
    """The pair at the sizes of Spikformer-4-384's stages, batch 16."""
    results = []
    for shape in ((4, 16, 48, 32, 32), (4, 16, 192, 16, 16), (4, 16, 384, 8, 8), (4, 16, 1536, 8, 8)):
        runs = {"zoo": Pair(shape[2], fused=True), "zoo norm, then node": Pair(shape[2])}
        runs["plain torch"] = Pair(shape[2], "lif(backend=torch)")
        runs = {name: run.to(device) for name, run in runs.items()}
        results.append(measure(runs, torch.randn(shape, device=device), rounds, device))
    return results


# -- the plot -------------------------------------------------------------------------------------------------
def plot(result: dict, path: Path) -> None:
    """Nanoseconds an element and step, forward and backward, over T and over the size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
    for axis, what, of in ((axes[0], "over_steps", lambda r: r["shape"][0]), (axes[1], "over_sizes", elements)):
        rows = result[what]
        lines = [name for name in rows[0] if isinstance(rows[0][name], dict)]
        for name in lines:
            there = [row for row in rows if name in row]
            y = [row[name]["both_seconds"] / elements(row) * 1e9 for row in there]
            axis.plot([of(row) for row in there], y, marker="o", label=name)
        limit = [row["limit_both_seconds"] / elements(row) * 1e9 for row in rows]
        axis.plot([of(row) for row in rows], limit, "k--", label="limit: bytes over copy bandwidth")
        axis.set(xscale="log", yscale="log", xlabel="T" if what == "over_steps" else "elements, T=4")
    axes[0].set_ylabel("forward and backward, ns an element")
    axes[1].legend(fontsize=7)
    figure.suptitle(f"LIF, float32, {result['device']}, {result['threads']} threads", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def elements(row: dict) -> int:
    return int(torch.tensor(row["shape"]).prod())


def run_all(args: argparse.Namespace) -> dict:
    def at(*shape: int) -> dict:
        torch._dynamo.reset()
        x = torch.randn(shape, device=args.device) * 1.5 + 0.5
        return measure(contestants(shape[0], args.device, args.quick), x, args.rounds, args.device)

    top = 24 if args.device == "cpu" else 28
    return {
        "main": at(*MAIN),
        "over_steps": [at(t, 64, 2**16 // t) for t in GRID_STEPS],
        "over_sizes": [at(4, 64, 2**power // 256) for power in range(16, top + 1, 2)],
        "norm_node": norm_node(args.rounds, args.device),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file for the result; the plot is put beside it")
    parser.add_argument("--quick", action="store_true", help="only this zoo and BrainCog")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    setting = {"rounds": args.rounds, "threads": args.threads, **environment(args.device)}
    result = {**setting, **run_all(args)}
    text = json.dumps(result, indent=2)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")
        plot(result, args.out.with_suffix(".png"))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
