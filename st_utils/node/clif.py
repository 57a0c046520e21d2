"""CLIF: a leaky integrate-and-fire neuron with a second state, whose gradient passes no surrogate.

    create("node", "clif(tau=2.0)")(torch.randn(4, 2, 8)).shape      # spikes [T, B, D]: torch.Size([4, 2, 8])

It runs in plain torch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from registry import register
from st_utils.errors import UserError
from st_utils.kernels.node.definition import Step
from st_utils.node.base import IntegrateAndFire


@register.node("clif", source="Huang et al. 2024, arXiv:2402.04663; HuuYuLong/Complementary-LIF")
class CLIF(IntegrateAndFire):
    """Complementary LIF: a memory m of recent spikes deepens the reset and carries gradients far back in time.

        h = v - (v - v_reset) / tau + x             (x / tau with decay_input)
        s = step(h - threshold)
        m = m sigmoid(h / tau) + s                  (m = 0 at the start)
        v = reset(h, s) - s sigmoid(m)

    Args:
        tau: membrane time constant in steps, at least 1.
        threshold: membrane potential that fires.
        v_reset: potential after a spike, before m is subtracted, and at rest; None subtracts the threshold.
        decay_input: divide the input by tau.
        detach_reset: no gradient flows through the s of the reset; m always carries its own.
        surrogate: stands in for the derivative of the step.

    The defaults are the paper's.
    """

    def __init__(
        self,
        tau: float = 2.0,
        threshold: float = 1.0,
        v_reset: float | None = None,
        decay_input: bool = False,
        detach_reset: bool = False,
        surrogate: str = "rectangle",
    ):
        super().__init__(threshold, v_reset, detach_reset, surrogate, backend="torch")
        if not tau >= 1:
            raise UserError(f"clif: tau must be at least 1, not {tau}")
        self.tau, self.decay_input = tau, decay_input

    def charge(self, v: Tensor | float, x: Tensor) -> Tensor:
        above_rest = v - (self.v_reset or 0.0)
        return v + ((x - above_rest) / self.tau if self.decay_input else x - above_rest / self.tau)

    def run(self, x: Tensor) -> Iterator[Step]:
        v: Tensor | float = self.v_reset or 0.0
        m: Tensor | float = 0.0
        for current in x:
            h = self.charge(v, current)
            s = self.surrogate.spike(h - self.threshold)
            m = m * torch.sigmoid(h / self.tau) + s
            leaving = s.detach() if self.detach_reset else s
            v = self.reset(h, leaving) - leaving * torch.sigmoid(m)
            yield Step(s, h, v)
