"""Batch norm and integrate-and-fire neuron as one on CUDA: Triton kernels, of which the host side is here.

x is the convolution's output, contiguous [T, B, C, ...], float32 or half precision; the norm's tensors are float32
[C]; the state is float32. Forward reads x twice (once with known statistics) and writes spikes; backward reads x
and the spikes' gradient twice (once with known statistics) and writes x's. The normalised tensor never exists.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from st_utils.kernels.cuda import LAUNCH, SEGMENT, SURROGATES, WARPS
from st_utils.kernels.form import Form


def statistics(x: Tensor, *, block: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel over T, B and positions, float32 [C]."""
    from st_utils.kernels.triton_norm_node import combine, moments

    shape = _Shape(x, block)
    means, squares = (x.new_empty(shape.planes * shape.parts, dtype=torch.float32) for _ in range(2))
    mean, var = (x.new_empty(shape.C, dtype=torch.float32) for _ in range(2))
    with torch.cuda.device_of(x):
        moments[shape.grid](x, means, squares, shape.n, shape.T, shape.P, **shape.settings, **LAUNCH)
        columns = shape.settings["COLUMNS"]
        combine[(shape.C,)](
            means, squares, mean, var, shape.B, shape.C, shape.T, shape.P, COLUMNS=columns, BLOCK=256, **LAUNCH
        )
    return mean, var


def forward(
    x: Tensor,
    norm: tuple[Tensor, Tensor, Tensor, Tensor],
    decay: float | Tensor,
    form: Form,
    *,
    block: int | None = None,
) -> Tensor:
    """Spikes, in x's dtype, of the neuron behind y = (x - mean) invstd weight + bias.

    Args:
        norm: mean, invstd, weight, bias, each float32 [C]: of this batch, or running ones.
        decay: as in `cuda.forward`.
        block: elements a program; None fits them to the registers.
    """
    shape, spikes = _Shape(x, block), torch.empty_like(x)
    _forward(x, spikes, x, norm, decay, form, shape, mark=False)
    return spikes


def backward(
    grad: Tensor,
    x: Tensor,
    norm: tuple[Tensor, Tensor, Tensor, Tensor],
    decay: float | Tensor,
    form: Form,
    batch_statistics: bool,
    *,
    block: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """dL/dx in x's dtype, dL/d weight and dL/d bias (float32 [C]), dL/d decay (float32; None if a number).

    `batch_statistics`: the mean and invstd are x's own, and carry gradient.
    """
    shape, grad_x, learnt = _Shape(x, block), torch.empty_like(x), isinstance(decay, Tensor)
    segmented = len(x) > shape.settings["STEPS"]
    marks = x
    if segmented:
        segments = -(-shape.T // shape.settings["STEPS"])
        marks = x.new_empty((segments - 1) * shape.n, dtype=torch.float32)
        _forward(x, x, marks, norm, decay, form, shape, mark=True)
    sums, products = (x.new_empty(shape.planes * shape.parts, dtype=torch.float32) for _ in range(2))
    decays = x.new_empty(math.prod(shape.grid) if learnt else 1, dtype=torch.float32)
    zero = torch.zeros(shape.C, dtype=torch.float32, device=x.device)

    def launch(mean_dy: Tensor, mean_dyx: Tensor, reduce: bool, write: bool) -> None:
        from st_utils.kernels.triton_norm_node import norm_fire_backward

        kind, alpha, beta = SURROGATES[form.surrogate](form.alpha)
        with torch.cuda.device_of(x):
            norm_fire_backward[shape.grid](
                grad, x, grad_x, marks, sums, products, decays, *norm, mean_dy, mean_dyx, *shape.neuron(decay, form),
                alpha, beta, REDUCE=reduce, WRITE=write, DETACH=form.detach_reset, SURROGATE=kind,
                SEGMENTED=segmented, **shape.settings, **_constants(decay, form), **LAUNCH,
            )  # fmt: skip

    launch(zero, zero, reduce=True, write=not batch_statistics)
    grad_bias, grad_weight = (v.view(shape.B, shape.C, shape.parts).sum((0, 2)) for v in (sums, products))
    if batch_statistics:
        count = x.numel() // shape.C
        launch(grad_bias / count, grad_weight / count, reduce=False, write=True)
    return grad_x, grad_weight, grad_bias, decays.sum() if learnt else None


def _forward(x, spikes, marks, norm, decay, form, shape, mark) -> None:
    from st_utils.kernels.triton_norm_node import norm_fire_forward

    with torch.cuda.device_of(x):
        norm_fire_forward[shape.grid](
            x, spikes, marks, *norm, *shape.neuron(decay, form), MARK=mark, **shape.settings,
            **_constants(decay, form), **LAUNCH,
        )  # fmt: skip


def _constants(decay: float | Tensor, form: Form) -> dict:
    learnt = isinstance(decay, Tensor)
    return {"CHARGE": form.charge, "LEARNT": learnt, "SOFT": form.v_reset is None, "STRICT": form.strict}


class _Shape:
    """How x [T, B, C, ...] is cut into programs: planes by positions; only P and T shape what is compiled."""

    def __init__(self, x: Tensor, block: int | None):
        self.T, self.B, self.C = x.shape[:3]
        self.planes, self.n = self.B * self.C, x[0].numel()
        self.P = x[0, 0, 0].numel()
        steps = min(self.T, SEGMENT)
        wide = 8 if x.dtype != torch.float32 and steps <= 4 else 4
        block = block or 32 * WARPS * (wide if self.P % 16 == 0 else 1)
        columns = min(1 << (self.P - 1).bit_length(), block)
        rows = block // columns
        self.parts = -(-self.P // columns)
        self.grid = (-(-self.planes // rows), self.parts)
        self.settings = {
            "STEPS": steps,
            "EVEN": self.T % steps == 0,
            "ALIGNED": self.P % 16 == 0,
            "EXACT": self.P % columns == 0,
            "ROWS": rows,
            "COLUMNS": columns,
        }

    def neuron(self, decay: float | Tensor, form: Form) -> tuple:
        """The kernels' arguments from `decay` to `reset`."""
        given = decay.detach().float() if isinstance(decay, Tensor) else float(decay)
        return given, self.n, self.C, self.T, self.P, form.threshold, form.v_reset or 0.0
