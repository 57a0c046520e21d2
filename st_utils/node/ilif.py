"""The integer-firing neuron of E-SpikeFormer: 0 to D spikes at once, which stand for the spikes of D time steps.

    create("node", "ilif(max_spikes=4)")(torch.tensor([[0.2, 1.7, 9.0]]))            # 0, 2 / 4, 4 / 4

It runs in plain torch.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from registry import register
from st_utils.errors import UserError
from st_utils.node.base import Node

SOURCE = "Yao et al. 2025 (E-SpikeFormer), arXiv:2411.16061; with decay I-LIF, Luo et al. 2024, arXiv:2407.20708"


@register.node("ilif", aliases=("multispike",), source=SOURCE + "; BICLab/Spike-Driven-Transformer-V3")
class ILIF(Node):
    """Integer firing: s = round(clamp(u, 0, D)), output s / D; the derivative is 1 / D where 0 <= u <= D.

    In training an integer stands for the spike count of D binary steps, into which inference unfolds it. In
    E-SpikeFormer's code the time steps are independent, u_t = x_t; with `decay` it is I-LIF, u_t = x_t + decay
    (u_{t-1} - s_{t-1}), without gradient through s_{t-1}.

    Args:
        max_spikes: D, the most spikes per time step.
        normalize: output s / D; False outputs s, as the authors do before the head.
        decay: the part of u_{t-1} - s_{t-1} that is kept: 0 in E-SpikeFormer, 0.25 in SpikeYOLO.
        rounding: of n + 1/2, to the even neighbour (the authors' Base code) or up (their Large code).
        strict_window: no gradient at u = 0 and u = D (the authors' Large code).
    """

    def __init__(
        self,
        max_spikes: int = 4,
        normalize: bool = True,
        decay: float = 0.0,
        rounding: Literal["half_even", "half_up"] = "half_even",
        strict_window: bool = False,
    ):
        super().__init__()
        if max_spikes < 1:
            raise UserError(f"ilif: max_spikes must be at least 1, not {max_spikes}")
        if not 0 <= decay <= 1:
            raise UserError(f"ilif: decay must be from 0 to 1, not {decay}")
        self.max_spikes, self.normalize, self.decay = max_spikes, normalize, decay
        self.rounding, self.strict_window = rounding, strict_window
        self.unit = 1 / max_spikes if normalize else 1.0

    def fire(self, x: Tensor) -> Tensor:
        spikes = self.integrate(x) if self.decay else self.quantize(x)
        return spikes / self.max_spikes if self.normalize else spikes

    def integrate(self, x: Tensor) -> Tensor:
        """Spike counts `[T, ...]` where the membrane potential is kept from step to step."""
        rest: Tensor | float = 0.0
        spikes = []
        for current in x:
            u = current + rest
            s = self.quantize(u)
            rest = self.decay * (u - s.detach())
            spikes.append(s)
        return torch.stack(spikes)

    def quantize(self, u: Tensor) -> Tensor:
        """Spike counts, 0 to D, of the membrane potential."""
        top = self.max_spikes
        window = (u > 0) & (u < top) if self.strict_window else (u >= 0) & (u <= top)
        return _Quantize.apply(u, window, top, self.rounding == "half_up")

    def extra_repr(self) -> str:
        return f"max_spikes={self.max_spikes}, normalize={self.normalize}, decay={self.decay}"


class _Quantize(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, window: Tensor, top: int, half_up: bool) -> Tensor:
        clamped = u.clamp(0, top)
        return torch.floor(clamped + 0.5) if half_up else torch.round(clamped)

    @staticmethod
    def setup_context(ctx, inputs: tuple, output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (window,) = ctx.saved_tensors
        return grad * window, None, None, None
