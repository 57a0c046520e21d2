"""Batch norm and integrate-and-fire neuron as one on CUDA: Triton kernels, of which the host side is here.

x is the convolution's output [T, B, C, ...], in memory as written or with its channels last, float32 or half
precision; the norm's tensors are float32 [C]; the state is float32. Forward reads x twice (once with known
statistics) and writes spikes; backward reads x and the spikes' gradient twice (once with known statistics) and writes
x's. The normalised tensor never exists. An x of one step stands for all steps of a static image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from st_utils.kernels.common.layout import empty_steps
from st_utils.kernels.node.cuda import LAUNCH, SEGMENT, WARPS, available, elements, scalar
from st_utils.kernels.node.form import Form
from st_utils.kernels.norm_node.form import Norm

__all__ = ["POSITIONS", "available", "backward", "forward", "statistics"]
POSITIONS = 1, 65535 * 32 * WARPS  # of a plane: a grid's second axis has 65535 programs


def statistics(x: Tensor, *, block: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel over T, B and positions, float32 [C]."""
    from st_utils.kernels.norm_node.triton_kernels import combine, moments

    shape = _Shape(x, len(x), block)
    means, squares = (_floats(shape.places, x) for _ in range(2))
    mean, var = (_floats(shape.C, x) for _ in range(2))
    cut = {key: shape.settings[key] for key in ("LAST", "ROWS", "COLUMNS")}
    with torch.cuda.device_of(x):
        moments[shape.grid](x, means, squares, shape.n, shape.T, shape.W, **shape.settings, **LAUNCH)
        combine[(shape.C,)](
            means, squares, mean, var, shape.rows, shape.C, shape.T, shape.W, **cut, BLOCK=256, **LAUNCH
        )
    return mean, var


def forward(
    x: Tensor, norm: Norm, decay: Tensor | None, form: Form, steps: int, *, block: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes of `steps` steps in x's dtype, with the batch's mean and variance if the norm has none (else empty).

    Args:
        decay: as in `cuda.forward`.
        block: elements a program; None fits them to the registers.
    """
    mean, var = statistics(x, block=block) if norm.mean is None else (_floats(0, x), _floats(0, x))
    used = norm._replace(mean=mean, var=var) if norm.mean is None else norm
    spikes = empty_steps(x, steps)
    _forward(x, spikes, x, used, decay, form, _Shape(x, steps, block), mark=False)
    return spikes, mean, var


def backward(
    grad: Tensor,
    x: Tensor,
    norm: Norm,
    batch: bool,
    decay: Tensor | None,
    form: Form,
    *,
    block: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """dL/dx in x's dtype, dL/d weight and dL/d bias (float32 [C]), dL/d decay (float32; None where none is learned).

    `batch`: the norm's mean and var are the batch's own and carry gradient. `grad` has x's order of axes in memory.
    """
    shape, grad_x, learned = _Shape(x, len(grad), block), torch.empty_like(x), decay is not None
    segments, marks = -(-shape.T // shape.settings["STEPS"]), x
    if segments > 1:
        marks = _floats((segments - 1) * shape.n, x)
        _forward(x, x, marks, norm, decay, form, shape, mark=True)
    sums, products = (_floats(shape.places, x) for _ in range(2))
    decays = _floats(shape.programs, x) if learned else x

    def launch(total_dy: Tensor, total_dyz: Tensor, reduce: bool, write: bool) -> None:
        from st_utils.kernels.norm_node.triton_kernels import norm_fire_backward

        with torch.cuda.device_of(x):
            norm_fire_backward[shape.grid](
                grad, x, grad_x, marks, sums, products, decays, total_dy, total_dyz, *_norm(norm),
                *shape.neuron(decay, form), form.alpha, form.beta, float(shape.n // shape.C * shape.T),
                REDUCE=reduce, WRITE=write, DETACH=form.detach, SURROGATE=form.surrogate, SEGMENTED=segments > 1,
                **shape.settings, **_constants(decay, form), **LAUNCH,
            )  # fmt: skip

    launch(sums, products, reduce=True, write=not batch)  # the totals come of it: there is nothing to read yet
    grad_bias, grad_weight = (v.view(-1, shape.C, shape.parts).sum((0, 2)) for v in (sums, products))
    if batch:
        launch(grad_bias, grad_weight, reduce=False, write=True)
    return grad_x, grad_weight, grad_bias, decays.sum() if learned else None


def _forward(x, spikes, marks, norm, decay, form, shape, mark) -> None:
    from st_utils.kernels.norm_node.triton_kernels import norm_fire_forward

    with torch.cuda.device_of(x):
        norm_fire_forward[shape.grid](
            x, spikes, marks, *_norm(norm), *shape.neuron(decay, form), MARK=mark, **shape.settings,
            **_constants(decay, form), **LAUNCH,
        )  # fmt: skip


def _floats(count: int, x: Tensor) -> Tensor:
    return torch.empty(count, dtype=torch.float32, device=x.device)


def _norm(norm: Norm) -> Norm:
    """With a weight and a bias, as the kernels' arguments."""
    if norm.weight is None:
        norm = norm._replace(weight=torch.ones_like(norm.mean))
    return norm if norm.bias is not None else norm._replace(bias=torch.zeros_like(norm.mean))


def _constants(decay: Tensor | None, form: Form) -> dict:
    return {"CHARGE": form.charge, "LEARNED": decay is not None, "SOFT": form.v_reset is None, "STRICT": form.strict}


class _Shape:
    """How `steps` steps of x [T, B, C, ...] are cut into tiles: see triton_norm_node.py.

    What is compiled depends on the positions of a plane, on T, and with the channels last on C; never on B.
    """

    def __init__(self, x: Tensor, steps: int, block: int | None):
        last = not x.is_contiguous()
        self.T, (self.B, self.C), self.n = steps, x.shape[1:3], x[0].numel()
        self.W = self.C if last else x[0, 0, 0].numel()
        self.rows = self.n // self.W
        unrolled, aligned = min(self.T, SEGMENT), self.W % 16 == 0
        block = block or 32 * WARPS * elements(x.dtype, unrolled, aligned)
        # Channels last: few columns, so that a tile has many rows and there are few sums.
        columns = min(1 << (self.W - 1).bit_length(), 32 if last else block)
        rows = block // columns
        self.grid = (-(-self.rows // rows), -(-self.W // columns))
        self.programs = self.grid[0] * self.grid[1]
        self.parts = 1 if last else self.grid[1]  # tiles of a row that have sums of the same channel
        self.places = self.grid[0] * self.C if last else self.rows * self.parts
        self.settings = {
            "LAST": last,
            "STATIC": len(x) != steps,
            "STEPS": unrolled,
            "EVEN": self.T % unrolled == 0,
            "ALIGNED": aligned,
            "EXACT": self.W % columns == 0,
            "ROWS": rows,
            "COLUMNS": columns,
        }

    def neuron(self, decay: Tensor | None, form: Form) -> tuple:
        """The kernels' arguments from `decay` to `reset`."""
        return scalar(decay, form), self.n, self.C, self.T, self.W, form.threshold, form.v_reset or 0.0
