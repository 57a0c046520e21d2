"""From how many multiplications per image on is the operator over spikes faster than torch's convolution?

    python -m benchmarks.convs --least [--rounds 9] [--threads 2] [--out FILE.json]

The answer decides LEAST in st_utils/kernels/spike_conv/op.py. Layers `Conv2d(C, C', kernel, bias=False)` on 8 x 8
pixels with C' = C or 2 C, whose dense product has 2^12 to 2^20 multiplications per image (9/8 of that with a 3 x 3
kernel), on B images in T = 4 steps, B = 1 and 16, with a fifth of spikes. Both ways are called as layers of a model
are, so that the calls around the kernels count; LEAST is 0 meanwhile. `forward` is inference, `both` is a training
step of the layer: the gradients of its input and its weight too. `least` is the smallest of the measured sizes from
which on all are faster; None where the largest is slower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.timing import alternate
from st_utils.kernels.spike_conv import op
from st_utils.kernels.spike_conv.conv2d import Conv2d

POWERS = range(12, 21)
KERNELS = (1, 3)
BATCHES = (1, 16)
STEPS, SIDE, DENSITY = 4, 8, 0.2
CALLS = 50  # per timing: a call of the smallest layer takes microseconds
PASSES = ("forward", "both")


def channels(power: int, kernel: int) -> tuple[int, int]:
    """C and C' of the layer with about 2^power multiplications per image: their product is a power of two."""
    product = power - 6 - (3 if kernel == 3 else 0)  # of 2^6 pixels, and 9 weights per pair of channels, about 2^3
    return 2 ** (product // 2), 2 ** (product - product // 2)


def multiplications(power: int, kernel: int) -> int:
    """What the layer has per image."""
    inputs, out = channels(power, kernel)
    return SIDE * SIDE * inputs * out * kernel * kernel


def measure(power: int, kernel: int, batch: int, rounds: int, calls: int = CALLS) -> dict[str, Any]:
    """A row of the result. Raises SystemExit where the two ways differ."""
    inputs, out = channels(power, kernel)
    x = (torch.rand(STEPS * batch, inputs, SIDE, SIDE) < DENSITY).float()
    x = x.contiguous(memory_format=torch.channels_last)
    ours = Conv2d(inputs, out, kernel, padding=kernel // 2, bias=False)
    theirs = nn.Conv2d(inputs, out, kernel, padding=kernel // 2, bias=False)
    theirs.load_state_dict(ours.state_dict())
    grad = torch.randn(STEPS * batch, out, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    row = {"kernel": kernel, "channels": inputs, "out": out, "images": STEPS * batch}
    row["multiplications"] = multiplications(power, kernel)
    with mock.patch.object(op, "LEAST", 0):
        for name in PASSES:
            works = {way: work_of(conv, x, grad, name) for way, conv in (("torch", theirs), ("ours", ours))}
            check(*(work() for work in works.values()), what=f"{name} of {row}")
            repeated = {way: _repeat(work, calls) for way, work in works.items()}
            taken = {way: seconds / calls for way, seconds in alternate(repeated, rounds, "cpu").items()}
            row |= {f"{name}_{way}_seconds": seconds for way, seconds in taken.items()}
            row[f"{name}_speed"] = taken["torch"] / taken["ours"]
    return row


def work_of(conv: nn.Module, x: Tensor, grad: Tensor, name: str) -> Callable[[], tuple[Tensor, ...]]:
    """The function that is timed: inference, or forward and backward with dL/d out = grad."""
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()

    def forward() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (conv(x),)

    return forward if name == "forward" else lambda: torch.autograd.grad(conv(leaf), (leaf, conv.weight), grad)


def check(right: Sequence[Tensor], found: Sequence[Tensor], what: str) -> None:
    """Raises SystemExit unless all results are equal within rounding."""
    for a, b in zip(right, found, strict=True):
        if not torch.allclose(a, b, rtol=1e-3, atol=1e-4 * a.abs().max().item()):
            raise SystemExit(f"{what} differs from torch's: nothing is measured")


def _repeat(work: Callable[[], object], calls: int) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(calls):
            work()

    return repeated


def least(rows: Sequence[dict[str, Any]], name: str) -> int | None:
    """The smallest number of multiplications from which on the operator is faster in all rows; `name` of PASSES."""
    found = None
    for size in sorted({row["multiplications"] for row in rows}, reverse=True):
        if any(row[f"{name}_speed"] <= 1 for row in rows if row["multiplications"] == size):
            break
        found = size
    return found


def result_of(rounds: int) -> dict[str, Any]:
    """All rows, and `least` by pass, kernel and batch."""
    cases = [(kernel, batch) for kernel in KERNELS for batch in BATCHES]
    rows = [measure(power, kernel, batch, rounds) for kernel, batch in cases for power in POWERS]
    found = [
        {"pass": name, "kernel": kernel, "batch": batch, "least": least(_of(rows, kernel, batch), name)}
        for name in PASSES
        for kernel, batch in cases
    ]
    return {"least_in_use": op.LEAST, "density": DENSITY, "rows": rows, "least": found}


def _of(rows: Sequence[dict[str, Any]], kernel: int, batch: int) -> list[dict[str, Any]]:
    return [row for row in rows if (row["kernel"], row["images"]) == (kernel, STEPS * batch)]


def plot(result: dict[str, Any], path: Path) -> None:
    """Times faster over the multiplications per image, a panel per pass; a dotted line where LEAST is."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for axis, name in zip(axes, PASSES, strict=True):
        for kernel, images in dict.fromkeys((row["kernel"], row["images"]) for row in result["rows"]):
            rows = _of(result["rows"], kernel, images // STEPS)
            sizes, speeds = [row["multiplications"] for row in rows], [row[f"{name}_speed"] for row in rows]
            axis.plot(sizes, speeds, marker="o", label=f"{kernel} x {kernel}, batch {images // STEPS}")
        axis.axhline(1, color="k", linestyle="--", linewidth=1)
        axis.axvline(result["least_in_use"], color="k", linestyle=":", linewidth=1)
        axis.set(xscale="log", yscale="log", xlabel="multiplications per image", title=name)
        axis.set_xscale("log", base=2)
    axes[0].set_ylabel("times faster than torch's convolution")
    axes[1].legend(fontsize=7)
    figure.suptitle(f"{result['device']}, {result['instruction_set']}, {result['threads']} threads", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
