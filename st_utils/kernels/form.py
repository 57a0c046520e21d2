"""What a kernel must know of an integrate-and-fire neuron: plain values, so that it travels through an op."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Form(NamedTuple):
    """One neuron in closed form: charge, fire on u = h - threshold, reset.

    charge, with d the decay and r = v_reset or 0:
        "if":    h = v + x
        "decay": h = v + (x - (v - r)) d
        "plain": h = v - (v - r) d + x
    v_reset None is the soft reset. `surrogate` names a closed form of u that the kernels know, with its
    numbers `alpha` (its sharpness) and, where it has a second one, `beta`; `strict` fires on u > 0 instead of u >= 0.
    """

    charge: Literal["if", "decay", "plain"]
    threshold: float
    v_reset: float | None
    detach_reset: bool
    surrogate: str
    alpha: float
    strict: bool
    beta: float = 0.0
