"""The integrate-and-fire neurons that have kernels: `if`, `lif`, `plif`.

    create("node", "lif(tau=2.0)")(torch.randn(4, 2, 8)).shape       # spikes [T, B, D]: torch.Size([4, 2, 8])
    create("node", "plif").decay()                                   # 1 / tau, learned: tensor(0.5000, ...)

Their equations stand in `st_utils/kernels/node/definition.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.kernels.node.definition import charge
from st_utils.node.base import Backend, IntegrateAndFire


@register.node("if", aliases=("if_node",), source="Lapicque 1907; as in SpikingJelly and BrainCog")
class IF(IntegrateAndFire):
    """Integrate and fire: h = v + x."""

    charge_form = "if"

    def __init__(
        self,
        threshold: float = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = True,
        surrogate: str = "sigmoid",
        backend: Backend = "auto",
        detach_membrane: bool = False,
    ):
        super().__init__(threshold, v_reset, detach_reset, surrogate, backend, detach_membrane)

    def charge(self, v: Tensor | float, x: Tensor) -> Tensor:
        return charge("if", v, x, self.decay(), self.v_reset or 0.0)


class _Leaky(IntegrateAndFire):
    """h = v + (x - (v - v_reset)) decay; with decay_input=false, h = v - (v - v_reset) decay + x."""

    def __init__(
        self,
        tau: float = 2.0,
        threshold: float = 1.0,
        v_reset: float | None = 0.0,
        decay_input: bool = True,
        detach_reset: bool = True,
        surrogate: str = "sigmoid",
        backend: Backend = "auto",
        detach_membrane: bool = False,
    ):
        super().__init__(threshold, v_reset, detach_reset, surrogate, backend, detach_membrane)
        self.decay_input = decay_input
        self.start(tau)

    def start(self, tau: float) -> None:
        """Check tau, and keep it as `decay` needs it."""
        raise NotImplementedError

    @property
    def charge_form(self) -> str:
        """`decay` scales the input by 1 / tau, `plain` does not."""
        return "decay" if self.decay_input else "plain"

    def charge(self, v: Tensor | float, x: Tensor) -> Tensor:
        return charge("decay" if self.decay_input else "plain", v, x, self.decay(), self.v_reset or 0.0)


@register.node("lif", source="SpikingJelly's and BrainCog's LIFNode; Fang et al. 2023, arXiv:2310.16620")
class LIF(_Leaky):
    """Leaky integrate and fire: h = v + (x - v) / tau; with decay_input=false h = v - v / tau + x.

    Args:
        tau: membrane time constant in steps, at least 1.
        threshold: membrane potential that fires.
        v_reset: potential after a spike and at rest; None subtracts the threshold instead.
        decay_input: divide the input by tau as well.
        detach_reset: no gradient flows through the reset.
        surrogate: stands in for the derivative of the step.
        backend: auto picks the device's kernel, with the spikes of backend=torch, the definition.
        detach_membrane: no gradient flows from a step to the one before (BrainCog's mem_detach).

    The defaults are those of Spikformer, SDT and QKFormer.
    """

    def start(self, tau: float) -> None:
        if not tau >= 1:
            raise UserError(f"lif: tau must be at least 1, not {tau}")
        self.tau = tau

    def decay(self) -> float:
        return 1 / self.tau


@register.node("plif", source="Fang et al. 2021 (PLIF), arXiv:2007.05785")
class PLIF(_Leaky):
    """LIF with a learned time constant, one per layer: 1 / tau = sigmoid(w); `tau` is its initial value."""

    def start(self, tau: float) -> None:
        if not tau > 1:
            raise UserError(f"plif: tau must be above 1, not {tau}")
        self.w = nn.Parameter(torch.tensor(-math.log(tau - 1)))

    def decay(self) -> Tensor:
        return torch.sigmoid(self.w)
