"""Batch norm and neuron as one on CUDA: launches the Triton kernels of `triton_kernels.py`.

    form = Form(charge="decay", threshold=1.0, v_reset=0.0, detach="reset", surrogate="sigmoid", alpha=4.0, decay=0.5)
    norm = Norm(weight=None, bias=None, mean=None, var=None, eps=1e-5)
    x = torch.randn(4, 2, 3, 8, 8, device="cuda")
    spikes, mean, var = forward(x, norm, None, form, steps=4)

Definition: st_utils/kernels/norm_node/definition.py. x is `[T, B, C, ...]`, float32 or half precision, in memory as
written or with its channels last; all else is float32. Forward reads x twice and writes spikes; backward reads x and
dL/ds twice and writes dL/dx; with known statistics each reads once. The normalised tensor is never in memory.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from st_utils.kernels.common.layout import empty_steps
from st_utils.kernels.node.cuda import (
    LAUNCH,
    SEGMENT,
    WARPS,
    available,
    decay_argument,
    elements_per_thread,
    neuron_constants,
)
from st_utils.kernels.node.form import Form
from st_utils.kernels.norm_node.definition import Fired
from st_utils.kernels.norm_node.form import Norm

__all__ = ["POSITIONS", "available", "backward", "forward", "statistics"]
# Least and most rows times columns: the second axis of a CUDA grid has at most 65535 programs.
POSITIONS = 1, 65535 * 32 * WARPS


class Statistics(NamedTuple):
    """Mean and population variance of each channel, float32 `[C]`."""

    mean: Tensor
    var: Tensor


def statistics(x: Tensor, *, block: int | None = None) -> Statistics:
    """Mean and variance of each channel of x over T, B and positions."""
    from st_utils.kernels.norm_node.triton_kernels import combine, moments

    tiles = Tiles(x, len(x), block)
    means, squares = (_floats(tiles.places, x) for _ in range(2))
    found = Statistics(*(_floats(tiles.C, x) for _ in range(2)))
    cut = {name: tiles.constants[name] for name in ("LAST", "ROWS", "COLUMNS")}
    with torch.cuda.device_of(x):
        moments[tiles.grid](
            x=x, means=means, squares=squares, T=tiles.T, W=tiles.W, n=tiles.n, **tiles.constants, **LAUNCH
        )
        combine[(tiles.C,)](
            means=means, squares=squares, mean=found.mean, var=found.var,
            T=tiles.T, C=tiles.C, W=tiles.W, R=tiles.rows, **cut, BLOCK=256, **LAUNCH,
        )  # fmt: skip
    return found


def forward(x: Tensor, norm: Norm, decay: Tensor | None, form: Form, steps: int, *, block: int | None = None) -> Fired:
    """Spikes of `steps` steps in x's dtype, with the batch's mean and variance if the norm has none (else empty).

    Args:
        decay: the learned 1 / tau, a tensor without axes on x's device; None takes `form.decay`.
        block: elements per program; None fits them to the registers.
    """
    found = statistics(x, block=block) if norm.mean is None else Statistics(_floats(0, x), _floats(0, x))
    used = norm._replace(mean=found.mean, var=found.var) if norm.mean is None else norm
    spikes = empty_steps(x, steps)
    _launch_forward(Tiles(x, steps, block), x=x, spikes=spikes, marks=x, norm=used, decay=decay, form=form, mark=False)
    return Fired(spikes, *found)


def backward(
    grad: Tensor,
    x: Tensor,
    norm: Norm,
    decay: Tensor | None,
    form: Form,
    of_batch: bool,
    *,
    block: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """dL/dx in x's dtype, dL/d weight and dL/d bias (float32 `[C]`), dL/d decay (float32; None where none is learned).

    With `of_batch`, the norm's mean and var are the batch's own and carry gradient. grad is dL/ds in x's layout.
    """
    tiles, grad_x, learned = Tiles(x, len(grad), block), torch.empty_like(x), decay is not None
    segments, marks = -(-tiles.T // tiles.constants["STEPS"]), x  # x stands in for a pointer that is not used
    if segments > 1:
        marks = _floats((segments - 1) * tiles.n, x)
        _launch_forward(tiles, x=x, spikes=x, marks=marks, norm=norm, decay=decay, form=form, mark=True)
    sums, products = (_floats(tiles.places, x) for _ in range(2))
    decays = _floats(tiles.programs, x) if learned else x

    def launch(total_dy: Tensor, total_dyz: Tensor, *, reduce: bool, write: bool) -> None:
        from st_utils.kernels.norm_node.triton_kernels import norm_fire_backward

        with torch.cuda.device_of(x):
            norm_fire_backward[tiles.grid](
                grad=grad, x=x, grad_x=grad_x, marks=marks, sums=sums, products=products, decays=decays,
                total_dy=total_dy, total_dyz=total_dyz, count=float(tiles.n // tiles.C * tiles.T),
                **norm_arguments(norm), **tiles.sizes, decay=decay_argument(decay, form),
                threshold=form.threshold, reset=form.rest, alpha=form.alpha, beta=form.beta,
                REDUCE=reduce, WRITE=write, DETACH=form.detach, SURROGATE=form.surrogate, SEGMENTED=segments > 1,
                **tiles.constants, **neuron_constants(decay, form), **LAUNCH,
            )  # fmt: skip

    launch(sums, products, reduce=True, write=not of_batch)  # this launch makes the totals, and reads none
    # [sums of other rows, C, tiles of a row] -> [C]
    grad_bias, grad_weight = (v.view(-1, tiles.C, tiles.per_row).sum((0, 2)) for v in (sums, products))
    if of_batch:
        launch(grad_bias, grad_weight, reduce=False, write=True)
    return grad_x, grad_weight, grad_bias, decays.sum() if learned else None


def _launch_forward(
    tiles: Tiles, *, x: Tensor, spikes: Tensor, marks: Tensor, norm: Norm, decay: Tensor | None, form: Form, mark: bool
) -> None:
    from st_utils.kernels.norm_node.triton_kernels import norm_fire_forward

    with torch.cuda.device_of(x):
        norm_fire_forward[tiles.grid](
            x=x, spikes=spikes, marks=marks, **norm_arguments(norm), **tiles.sizes, decay=decay_argument(decay, form),
            threshold=form.threshold, reset=form.rest, MARK=mark, **tiles.constants, **neuron_constants(decay, form),
            **LAUNCH,
        )  # fmt: skip


def norm_arguments(norm: Norm) -> dict:
    """The norm as the kernels' arguments, which always have a weight and a bias."""
    weight = torch.ones_like(norm.mean) if norm.weight is None else norm.weight
    bias = torch.zeros_like(norm.mean) if norm.bias is None else norm.bias
    return norm._replace(weight=weight, bias=bias)._asdict()


def _floats(count: int, x: Tensor) -> Tensor:
    return torch.empty(count, dtype=torch.float32, device=x.device)


class Tiles:
    """How `steps` steps of x `[T, B, C, ...]` are cut into tiles: see `triton_kernels.py`.

    The constants depend on the positions of a plane, on T, and with the channels last on C; never on B, so that a new
    batch size compiles nothing.
    """

    def __init__(self, x: Tensor, steps: int, block: int | None):
        last = not x.is_contiguous()
        self.T, self.C, self.n = steps, x.shape[2], x[0].numel()
        self.W = self.C if last else x[0, 0, 0].numel()
        self.rows = self.n // self.W
        unrolled, aligned = min(self.T, SEGMENT), self.W % 16 == 0
        block = block or 32 * WARPS * elements_per_thread(x.dtype, unrolled, aligned)
        # Channels last: few columns, so that a tile has many rows and there are few sums.
        columns = min(1 << (self.W - 1).bit_length(), 32 if last else block)
        rows = block // columns
        self.grid = (-(-self.rows // rows), -(-self.W // columns))
        self.programs = self.grid[0] * self.grid[1]
        self.per_row = 1 if last else self.grid[1]  # tiles along a row whose sums are of the same channel
        self.places = self.grid[0] * self.C if last else self.rows * self.per_row  # sums of all tiles and channels
        self.sizes = {"T": self.T, "C": self.C, "W": self.W, "n": self.n}
        self.constants = {
            "LAST": last,
            "STATIC": len(x) != steps,
            "STEPS": unrolled,
            "EVEN": self.T % unrolled == 0,
            "ALIGNED": aligned,
            "EXACT": self.W % columns == 0,
            "ROWS": rows,
            "COLUMNS": columns,
        }
