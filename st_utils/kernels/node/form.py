"""What a kernel must know of an integrate-and-fire neuron.

    form = Form(charge="decay", threshold=1.0, v_reset=0.0, detach="reset", surrogate="sigmoid", alpha=4.0, decay=0.5)
    from_json(to_json(form)) == form      # True

These are plain values, which pass through an operator as one string: its arguments are tensors, numbers and strings.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Literal, NamedTuple


class Form(NamedTuple):
    """One neuron in closed form; `st_utils/kernels/node/definition.py` has the equations.

    Attributes:
        charge: how the membrane h before firing comes from v and x; `if` has no leak, `decay` scales the input too.
        threshold: fires where u = h - threshold is at least 0.
        v_reset: v after a spike (hard reset), and v at rest; None subtracts the threshold (soft reset), rest is 0.
        detach: what carries no gradient: `reset` is the s of the reset, `membrane` is all of v from step to step.
        surrogate: ds/du, a name of `SHAPES` in `st_utils/kernels/node/surrogates.py`.
        alpha, beta: that shape's a and b.
        strict: fires where u > 0 instead of u >= 0.
        decay: 1 / tau of a neuron that does not learn it.
    """

    charge: Literal["if", "decay", "plain"]
    threshold: float
    v_reset: float | None
    detach: Literal["nothing", "reset", "membrane"]
    surrogate: str
    alpha: float
    beta: float = 0.0
    strict: bool = False
    decay: float = 0.0

    @property
    def rest(self) -> float:
        """v before the first step."""
        return self.v_reset or 0.0


# Cached: a model calls its neurons in every step, and writing the text takes longer than a small layer's kernel.
@lru_cache(maxsize=1024)
def to_json(form: Form) -> str:
    """The form as an operator's argument; its numbers come back bit for bit."""
    return json.dumps(form._asdict())


@lru_cache(maxsize=1024)
def from_json(text: str) -> Form:
    """The form that `to_json` wrote."""
    return Form(**json.loads(text))
