"""The parallel spiking neurons: all time steps at once, by one matrix over time, with no reset.

    create("node", "psn", step=4)(torch.randn(4, 2, 8)).shape        # spikes [T, B, D]: torch.Size([4, 2, 8])
    create("node", "sliding_psn(order=3)")(torch.randn(9, 2, 8))     # any T

They run in plain torch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from registry import create, register
from st_utils.errors import UserError
from st_utils.node.base import Node, check_steps

SOURCE = "Fang et al. 2023, arXiv:2304.12760"


class _Parallel(Node):
    """s = step(W x + b), with W `[T, T]` over time and b the negated threshold."""

    bias: nn.Parameter

    def __init__(self, surrogate: str):
        super().__init__()
        self.surrogate = create("surrogate", surrogate)

    def mixing(self, x: Tensor) -> Tensor:
        """W `[T, T]`: row t has the weights of all time steps of x in h_t."""
        raise NotImplementedError

    def no_weight_decay(self) -> set[str]:
        """W and b: they are the neuron's time constants and threshold, and decay would silence it."""
        return {"weight", "bias"}

    def fire(self, x: Tensor) -> Tensor:
        h = torch.tensordot(self.mixing(x).to(x.dtype), x, dims=1)
        bias = self.bias.to(x.dtype).view(-1, *(1,) * (x.dim() - 1))
        return self.surrogate.spike(h + bias)

    def extra_repr(self) -> str:
        return f"surrogate={self.surrogate.spec}"


@register.node("psn", source=SOURCE + "; SpikingJelly")
class PSN(_Parallel):
    """Parallel spiking neuron: s = step(W x + b), all steps at once; W [T, T] and b [T] learned, not causal.

    Args:
        step: T, the number of time steps; an input of any other raises UserError.
        threshold: initial -b.
        surrogate: stands in for the derivative of the step.
    """

    name = "psn"

    def __init__(self, step: int, threshold: float = 1.0, surrogate: str = "atan"):
        super().__init__(surrogate)
        if step < 1:
            raise UserError(f"{self.name}: step must be at least 1, not {step}")
        self.step = step
        self.weight = nn.Parameter(torch.empty(step, step))
        self.bias = nn.Parameter(torch.full((step,), -float(threshold)))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def mixing(self, x: Tensor) -> Tensor:
        check_steps(self.name, self.step, x)
        return self.weight


@register.node("masked_psn", source=SOURCE + "; SpikingJelly")
class MaskedPSN(PSN):
    """PSN in which step t sees only the last `order` steps: s = step((W M) x + b), M[t, j] = 1 for t - order < j <= t.

    Args:
        step: T, the number of time steps; an input of any other raises UserError.
        order: how many steps a step sees, its own included.
        masking: lambda of W (lambda M + 1 - lambda). The authors raise it from 0 to 1 during training (SpikingJelly
            starts at 0); here it is 1, causal, until something sets the attribute.
        threshold: initial -b.
        surrogate: stands in for the derivative of the step.
    """

    name = "masked_psn"

    def __init__(
        self, step: int, order: int = 2, masking: float = 1.0, threshold: float = 1.0, surrogate: str = "atan"
    ):
        super().__init__(step, threshold, surrogate)
        if order < 1:
            raise UserError(f"masked_psn: order must be at least 1, not {order}")
        if not 0 <= masking <= 1:
            raise UserError(f"masked_psn: masking must be from 0 to 1, not {masking}")
        self.order, self.masking = order, masking
        band = torch.ones(step, step).tril().triu(1 - order)
        self.register_buffer("band", band, persistent=False)

    def mixing(self, x: Tensor) -> Tensor:
        return super().mixing(x) * (self.masking * self.band + (1 - self.masking))


@register.node("sliding_psn", source=SOURCE + "; SpikingJelly")
class SlidingPSN(_Parallel):
    """PSN with one filter for all steps, for any T: s[t] = step(sum over lags l < order of w_l x[t - l] + b).

    Args:
        order: length of the filter in time steps; x is 0 before the first step.
        threshold: initial -b.
        exp_init: initial weights 1, 1/2, 1/4, ... back in time; False draws them as `psn` does.
        surrogate: stands in for the derivative of the step.

    `weight` `[order]` ends with the weight of the present step, as in SpikingJelly.
    """

    def __init__(self, order: int = 2, threshold: float = 1.0, exp_init: bool = True, surrogate: str = "atan"):
        super().__init__(surrogate)
        if order < 1:
            raise UserError(f"sliding_psn: order must be at least 1, not {order}")
        self.order = order
        weight = 2.0 ** torch.arange(1 - order, 1, dtype=torch.float32)
        if not exp_init:
            nn.init.kaiming_uniform_(weight.view(1, order), a=math.sqrt(5))
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.tensor(-float(threshold)))

    def mixing(self, x: Tensor) -> Tensor:
        step = torch.arange(len(x), device=x.device)
        lag = step[:, None] - step
        seen = (lag >= 0) & (lag < self.order)
        return torch.where(seen, self.weight.flip(0)[lag.clamp(0, self.order - 1)], 0)
