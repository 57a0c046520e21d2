"""What a kernel must know of an integrate-and-fire neuron: plain values, which travel through an op as one string."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Literal, NamedTuple

# The shapes of a surrogate, d spike / d u with numbers a and b: surrogates.h and triton_neuron.py compute each of
# them, and a class of st_utils/node says by `kernel` and `kernel_numbers` which one it is.
SHAPES = {
    "sigmoid": "a s (1 - s), s = sigmoid(a u)",
    "cauchy": "a / (1 + (b u)^2)",
    "triangle": "max(0, a - b |u|)",
    "box": "a where |u| < b, else 0",
    "plateau": "1 / (2 a) where |u| < a, else b",
    "exponential": "a exp(-b |u|)",
    "gaussian": "a exp(-(b u)^2)",
    "soft_sign": "a / (1 + b |u|)^2",
    "hyperbola": "a / (b + |u|)",
    "capped_hyperbola": "min(1 / |u|, a)",
    "power": "(1 + b |u|)^-a",
    "log_tail": "a where u <= 0, else 1 / max(u, 1)",
    "above": "a where u > 0, else 0",
    "slopes": "a where u >= 0, else b",
    "s2nn": "as sigmoid where u < 0, else b / (1 + u)",
    "fourier": "2 b / pi times the sum of cos((2 i - 1) b u) for i from 1 to a - 1",
}


class Form(NamedTuple):
    """One neuron in closed form: charge, fire on u = h - threshold, reset.

    charge, with d the decay and r = v_reset or 0:
        "if":    h = v + x
        "decay": h = v + (x - (v - r)) d
        "plain": h = v - (v - r) d + x
    v_reset None is the soft reset. `detach`: what carries no gradient, the s of the reset or the whole membrane
    from step to step. `surrogate` is one of SHAPES, with its numbers `alpha` and `beta`; `strict` fires on u > 0
    instead of u >= 0. `decay` is the d of a neuron that learns none.
    """

    charge: Literal["if", "decay", "plain"]
    threshold: float
    v_reset: float | None
    detach: Literal["nothing", "reset", "membrane"]
    surrogate: str
    alpha: float
    strict: bool
    beta: float = 0.0
    decay: float = 0.0


@lru_cache(maxsize=1024)
def written(form: Form) -> str:
    """The form as the string that an op takes; its numbers come back bit for bit."""
    return json.dumps(form)


@lru_cache(maxsize=1024)
def read(text: str) -> Form:
    """The form that `written` wrote."""
    return Form(*json.loads(text))
