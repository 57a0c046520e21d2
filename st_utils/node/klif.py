"""KLIF: a leaky integrate-and-fire neuron that learns the scale of its membrane potential.

    create("node", "klif(tau=2.0)")(torch.randn(4, 2, 8)).shape      # spikes [T, B, D]: torch.Size([4, 2, 8])

It runs in plain torch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.node.base import IntegrateAndFire


@register.node("klif", source="Jiang & Zhang 2023, arXiv:2302.09238; as SpikingJelly's KLIFNode")
class KLIF(IntegrateAndFire):
    """LIF that fires on a scaled, rectified membrane potential: h = relu(k (v + (x - v) / tau)), k learned.

    The reset takes the scaled potential, as in SpikingJelly and the STEP benchmark; with `scale_reset` it is divided by
    k first.

    Args:
        tau: membrane time constant in steps, at least 1.
        threshold: the h, scaled, that fires.
        v_reset: potential after a spike and at rest; None subtracts the threshold instead.
        decay_input: divide the input by tau as well.
        detach_reset: no gradient flows through the reset.
        scale_reset: divide h by k in the reset.
        surrogate: stands in for the derivative of the step.

    `k` is one number per layer, 1 at the start.
    """

    def __init__(
        self,
        tau: float = 2.0,
        threshold: float = 1.0,
        v_reset: float | None = 0.0,
        decay_input: bool = True,
        detach_reset: bool = True,
        scale_reset: bool = False,
        surrogate: str = "sigmoid",
    ):
        super().__init__(threshold, v_reset, detach_reset, surrogate, backend="torch")
        if not tau >= 1:
            raise UserError(f"klif: tau must be at least 1, not {tau}")
        self.tau, self.decay_input, self.scale_reset = tau, decay_input, scale_reset
        self.k = nn.Parameter(torch.ones(()))

    def charge(self, v: Tensor | float, x: Tensor) -> Tensor:
        above_rest = v - (self.v_reset or 0.0)
        change = (x - above_rest) / self.tau if self.decay_input else x - above_rest / self.tau
        return torch.relu(self.k.to(x.dtype) * (v + change))

    def reset(self, h: Tensor, s: Tensor) -> Tensor:
        if not self.scale_reset:
            return super().reset(h, s)
        k = self.k.to(h.dtype)
        if self.v_reset is None:
            return (h - s * self.threshold) / k
        return (1 - s) * (h / k) + s * self.v_reset
