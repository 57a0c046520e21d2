"""The integrate-and-fire neurons: `if`, `lif`, `plif`."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
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
        return v + x


class _Leaky(IntegrateAndFire):
    """h = v + (x - (v - v_reset)) decay, or, with plain input, h = v - (v - v_reset) decay + x."""

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
        """Keep tau, in whatever form `decay` wants."""
        raise NotImplementedError

    @property
    def charge_form(self) -> str:
        """Which of the two."""
        return "decay" if self.decay_input else "plain"

    def charge(self, v: Tensor | float, x: Tensor) -> Tensor:
        decay = self.decay()
        if isinstance(decay, Tensor):
            decay = decay.to(x.dtype)
        rest = self.v_reset or 0.0
        above_rest = v - rest if rest else v
        if self.decay_input:
            return v + (x - above_rest) * decay
        return v - above_rest * decay + x


@register.node("lif", source="SpikingJelly's and BrainCog's LIFNode; Fang et al. 2023, arXiv:2310.16620")
class LIF(_Leaky):
    """Leaky integrate and fire: h = v + (x - v) / tau; with decay_input=false h = v - v / tau + x.

    Args:
        tau: membrane time constant in steps, at least 1.
        threshold: membrane potential that fires.
        v_reset: potential after a spike and at rest; none subtracts the threshold instead.
        decay_input: divide the input by tau as well.
        detach_reset: no gradient through the reset.
        surrogate: what stands in for the step's derivative.
        backend: auto picks the fastest that computes the same.
        detach_membrane: no gradient from a step to the one before (BrainCog's mem_detach).

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
    """LIF whose time constant is learned, one a layer: 1 / tau = sigmoid(w); `tau` is where it starts."""

    def start(self, tau: float) -> None:
        if not tau > 1:
            raise UserError(f"plif: tau must be above 1, not {tau}")
        self.w = nn.Parameter(torch.tensor(-math.log(tau - 1)))

    def decay(self) -> Tensor:
        return torch.sigmoid(self.w)
