"""Integrate-and-fire neurons in plain torch: the definition that the kernels of this folder are tested against.

With x_t the input current, d = 1 / tau, r the rest (v_reset or 0), theta the threshold, and v_0 = r, for t = 1 ... T:

    h_t = v_{t-1} + x_t                               charge "if"
    h_t = v_{t-1} + (x_t - (v_{t-1} - r)) d           charge "decay"
    h_t = v_{t-1} - (v_{t-1} - r) d + x_t             charge "plain"
    s_t = 1 where h_t - theta >= 0 (strict: > 0), else 0
    v_t = (1 - s_t) h_t + s_t r                       hard reset
    v_t = h_t - theta s_t                             soft reset (v_reset None)

Backward, autograd differentiates these lines with ds_t/dh_t = surrogate(h_t - theta).

    form = Form(charge="decay", threshold=1.0, v_reset=0.0, detach="reset", surrogate="sigmoid", alpha=4.0, decay=0.5)
    integrate_and_fire(torch.full((5, 1), 1.5), None, form).flatten()     # 0, 1, 0, 1, 0

`forward` of `cpu.py` and `cuda.py` has the same parameters in the same order. `IntegrateAndFire` in
`st_utils/node/base.py` runs the same loop, with methods that a subclass may replace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from st_utils.kernels.node.form import Form
from st_utils.kernels.node.surrogates import SHAPES, spike

Membrane = Tensor | float  # a number before the first step
Detach = Literal["nothing", "reset", "membrane"]


class Step(NamedTuple):
    """One time step: spikes, the membrane potential before firing, and the one after the reset."""

    s: Tensor
    h: Tensor
    v: Tensor


def integrate_and_fire(x: Tensor, decay: Tensor | None, form: Form) -> Tensor:
    """Spikes of the input currents `[T, ...]`, in float32 or float64, like x.

    `decay` is the learned 1 / tau, a tensor without axes; None takes `form.decay`.
    """
    d = form.decay if decay is None else decay
    steps = over_time(
        x,
        rest=form.rest,
        charge=lambda v, x_t: charge(form.charge, v, x_t, d, form.rest),
        fire=lambda h: spike(h - form.threshold, Surrogate(form)),
        reset=lambda h, s: reset(h, s, form.threshold, form.v_reset),
        detach=form.detach,
    )
    return torch.stack([step.s for step in steps])


def over_time(
    x: Tensor,
    *,
    rest: float,
    charge: Callable[[Membrane, Tensor], Tensor],
    fire: Callable[[Tensor], Tensor],
    reset: Callable[[Tensor, Tensor], Tensor],
    detach: Detach,
) -> Iterator[Step]:
    """The time loop: each step of `[T, ...]` currents by these three functions, from rest."""
    v: Membrane = rest
    for x_t in x:
        h = charge(v, x_t)
        s = fire(h)
        v = reset(h, s if detach == "nothing" else s.detach())
        v = v.detach() if detach == "membrane" else v
        yield Step(s, h, v)


def charge(kind: str, v: Membrane, x: Tensor, decay: Tensor | float, rest: float) -> Tensor:
    """h from the v of the step before and the input current."""
    if kind == "if":
        return v + x
    if isinstance(decay, Tensor):
        decay = decay.to(x.dtype)
    above_rest = v - rest if rest else v  # without the pass over memory that subtracting 0 would be
    return v + (x - above_rest) * decay if kind == "decay" else v - above_rest * decay + x


def reset(h: Tensor, s: Tensor, threshold: float, v_reset: float | None) -> Tensor:
    """v from h and the spikes."""
    if v_reset is None:
        return h - threshold * s
    return (1 - s) * h + s * v_reset if v_reset else (1 - s) * h


class Surrogate(NamedTuple):
    """The spike of a form: where it fires, and its derivative."""

    form: Form

    def fires(self, u: Tensor) -> Tensor:
        return u > 0 if self.form.strict else u >= 0

    def gradient(self, u: Tensor) -> Tensor:
        return SHAPES[self.form.surrogate](u, self.form.alpha, self.form.beta)
