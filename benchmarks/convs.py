"""Convolutions over spikes: sums of weights (st_utils/kernels/spike_conv) against torch's dense products, on the CPU.

    python -m benchmarks.convs [--rounds 9] [--threads 2] [--out FILE.json]
    python -m benchmarks.convs --least             # of small layers alone: from which size on the sums pay

Forward and the gradient of the weight, for the layers of Spikformer-4-384 at 32 x 32 with T = 4 and 16 images, and of
one image, over the part of their input that is not zero. Both ways are compared before anything is measured. A plot is
saved beside the JSON, as .png.

Then strided 1 x 1 convolutions, forward and backward, over an input with a fifth of spikes: torch's kernel, whose
backward pass writes out of bounds for some numbers of channels (not for these), against our Conv2d, which takes every
s-th row and column first. With `--least`, see conv_least.py instead. `instruction_set` is that of the kernels.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import conv_least
from benchmarks.result import publish
from benchmarks.timing import alternate
from st_utils.kernels.common.allocator import keep_freed_memory
from st_utils.kernels.common.compiler import instruction_set
from st_utils.kernels.spike_conv import definition
from st_utils.kernels.spike_conv import op as sparse_conv
from st_utils.kernels.spike_conv.conv2d import Conv2d
from st_utils.kernels.spike_conv.definition import Geometry
from st_utils.training.environment import environment

DENSITIES = (0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5)
# Input [N, C, H, W], channels out, kernel.
LAYERS = (
    ((64, 96, 32, 32), 192, 3),
    ((64, 192, 16, 16), 384, 3),
    ((64, 384, 8, 8), 384, 3),
    ((64, 384, 8, 8), 384, 1),
    ((64, 384, 8, 8), 1536, 1),
    ((64, 1536, 8, 8), 384, 1),
    ((4, 384, 8, 8), 384, 1),
    ((4, 384, 8, 8), 384, 3),
)


# Input [N, C, H, W] and channels out of strided shortcuts: of ResNet-18, of QKFormer and of a narrow network.
STRIDED = (((64, 64, 32, 32), 128), ((64, 256, 8, 8), 512), ((64, 192, 16, 16), 384), ((64, 16, 64, 64), 32))


def layer_at(shape: tuple[int, ...], out: int, kernel: int, density: float, rounds: int) -> dict:
    """Seconds of dense products and of sums over spikes, and their ratio."""
    x = (torch.rand(shape) < density).float().contiguous(memory_format=torch.channels_last)
    weight = torch.randn(out, shape[1], kernel, kernel)
    grad = torch.randn(shape[0], out, *shape[2:]).contiguous(memory_format=torch.channels_last)
    geometry, wanted = Geometry(padding=(kernel // 2, kernel // 2)), sparse_conv.Wanted(weight=True)
    works = {
        "forward": {
            "dense": lambda: definition.convolve(x, weight, None, *geometry),
            "spikes": lambda: sparse_conv.convolve(x, weight, None, *geometry),
        },
        "weight": {
            "dense": lambda: sparse_conv.dense_gradients(grad, x, weight, geometry, wanted).weight,
            "spikes": lambda: sparse_conv.weight_gradient(grad, x, weight, *geometry),
        },
    }  # fmt: skip
    row = {"input": list(shape), "out": out, "kernel": kernel, "density": density}
    for what, ways in works.items():
        results = [work() for work in ways.values()]
        if not torch.allclose(*results, rtol=1e-3, atol=1e-4 * results[0].abs().max().item()):
            raise SystemExit(f"{what} of {row} differs from torch's: nothing is measured")
        times = alternate(ways, rounds, "cpu")
        row |= {f"{what}_{name}_seconds": taken for name, taken in times.items()}
        row[f"{what}_speed"] = times["dense"] / times["spikes"]
    return row


def strided_at(shape: tuple[int, ...], out: int, rounds: int) -> dict:
    """Seconds of a step of a 1 x 1 convolution with stride 2, by torch's kernel and by ours."""
    x = (torch.rand(shape) < 0.2).float().contiguous(memory_format=torch.channels_last).requires_grad_()
    ours = Conv2d(shape[1], out, 1, 2, bias=False)
    theirs = nn.Conv2d(shape[1], out, 1, 2, bias=False)
    theirs.load_state_dict(ours.state_dict())
    grad = torch.randn_like(theirs(x))

    def step(conv: nn.Module) -> tuple[Tensor, ...]:
        return torch.autograd.grad(conv(x), (x, conv.weight), grad)

    for mine, torchs in zip(step(ours), step(theirs), strict=True):
        if not torch.allclose(mine, torchs, rtol=1e-3, atol=1e-4 * torchs.abs().max().item()):
            raise SystemExit(f"the strided convolution {shape} to {out} differs from torch's: nothing is measured")
    times = alternate({"torch": lambda: step(theirs), "ours": lambda: step(ours)}, rounds, "cpu")
    seconds = {f"{name}_seconds": taken for name, taken in times.items()}
    return {"input": list(shape), "out": out, **seconds, "speed": times["torch"] / times["ours"]}


def plot(result: dict, path: Path) -> None:
    """Times faster over density, one line per layer."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for axis, what, title in ((axes[0], "forward", "forward"), (axes[1], "weight", "gradient of the weight")):
        for shape, out, kernel in LAYERS:
            rows = [r for r in result["rows"] if (r["input"], r["out"], r["kernel"]) == (list(shape), out, kernel)]
            label = f"{shape[1]} to {out}, {kernel} x {kernel}, {shape[0]} x {shape[2]} x {shape[3]} pixels"
            axis.plot([r["density"] for r in rows], [r[f"{what}_speed"] for r in rows], marker="o", label=label)
        axis.axhline(1, color="k", linestyle="--", linewidth=1)
        axis.set(xscale="log", yscale="log", xlabel="part of the input that is not zero", title=title)
    axes[0].set_ylabel("times faster than torch's convolution")
    axes[1].legend(fontsize=7)
    figure.suptitle(f"{result['device']}, {result['threads']} threads, torch {result['torch']}", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--least", action="store_true", help="measure small layers alone, see conv_least.py")
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    settings = {"rounds": args.rounds, "threads": args.threads, **environment("cpu")}
    settings["instruction_set"] = instruction_set()
    if args.least:
        publish(settings | conv_least.result_of(args.rounds), args.out, conv_least.plot)
        return 0
    rows = [layer_at(*layer, density, args.rounds) for layer in LAYERS for density in DENSITIES]
    strided = [strided_at(*layer, args.rounds) for layer in STRIDED]
    publish(settings | {"rows": rows, "strided": strided}, args.out, plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
