"""GLIF: a neuron that learns, channel by channel, how it leaks, integrates and resets.

    create("node", "glif", step=4, channel=8)(torch.randn(4, 2, 8, 5, 5)).shape      # spikes [T, B, C, H, W]

It runs in plain torch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from registry import create, register
from st_utils.errors import UserError
from st_utils.node.base import Node, check_steps


@register.node("glif", source="Yao et al. 2022, arXiv:2210.13768; CAS-CLab/Gated-LIF; the STEP benchmark")
class GLIF(Node):
    """Gated LIF: gates alpha, beta, gamma in [0, 1] mix two forms each of the leak, the input and the reset.

        u_t = (1 - alpha (1 - tau)) u_{t-1} (1 - gamma s_{t-1}) - (1 - alpha) leak
              + (1 - beta (1 - conduct)) x_t - (1 - gamma) reset s_{t-1}
        s_t = step(u_t - threshold)

    alpha = 1 is an exponential leak, 0 a linear one; beta = 1 scales the input by conduct, 0 leaves it; gamma = 1
    resets to 0, 0 subtracts. Each symbol is the sigmoid of a parameter; the parameters have the authors' names
    (alpha, beta, gamma, tau, Vth, leak, conduct, reVth) and shapes.

    Args:
        step: T, the number of time steps; an input of any other raises UserError.
        channel: one value per channel, on axis 2 of `[T, B, channel, ...]`; None has one per layer.
        per_step: one value per time step for tau, leak, threshold and reset too, as conduct always has.
        gates: initial alpha, beta and gamma, by default the paper's. The STEP benchmark and the authors' layer-wise
            class have (0.45, 0.35, 0.45), from the other sign of the logarithm.
        learn_gates: False fixes each gate at 1 where it is above 0.5, else at 0 (the benchmark's default); then the
            gates are not trained, and the parameters behind a closed gate get gradient 0.
        decay: initial tau, the part of the potential that the exponential leak leaves.
        threshold: initial threshold, and initial reset, the amount that the soft reset subtracts.
        leak: initial leak, which the linear leak subtracts per step; None is threshold / (2 step).
        conduct: initial conduct.
        surrogate: stands in for the derivative of the step.

    Initial values must lie between 0 and 1, exclusive. The reset carries its gradient.
    """

    def __init__(
        self,
        step: int,
        channel: int | None = None,
        per_step: bool = False,
        gates: tuple[float, float, float] = (0.55, 0.65, 0.55),
        learn_gates: bool = True,
        decay: float = 0.25,
        threshold: float = 0.5,
        leak: float | None = None,
        conduct: float = 0.5,
        surrogate: str = "rectangle(strict=true)",
    ):
        super().__init__()
        if step < 1:
            raise UserError(f"glif: step must be at least 1, not {step}")
        self.step, self.channel, self.per_step, self.learn_gates = step, channel, per_step, learn_gates
        self.surrogate = create("surrogate", surrogate)
        leak = threshold / (2 * step) if leak is None else leak
        per_channel = () if channel is None else (channel,)
        over_steps = (step, *per_channel)
        for name, start in zip(("alpha", "beta", "gamma"), gates, strict=True):
            setattr(self, name, nn.Parameter(_logit("gates", start, per_channel), requires_grad=learn_gates))
        shape = over_steps if per_step else per_channel
        self.tau = nn.Parameter(_logit("decay", decay, shape))
        self.Vth = nn.Parameter(_logit("threshold", threshold, shape))
        self.leak = nn.Parameter(_logit("leak", leak, shape))
        self.conduct = nn.Parameter(_logit("conduct", conduct, over_steps))
        self.reVth = nn.Parameter(_logit("threshold", threshold, shape))

    def no_weight_decay(self) -> set[str]:
        """All parameters: decay would draw each one to 0, its sigmoid to 0.5."""
        return {"alpha", "beta", "gamma", "tau", "Vth", "leak", "conduct", "reVth"}

    def fire(self, x: Tensor) -> Tensor:
        check_steps("glif", self.step, x)
        if self.channel is not None and (x.dim() < 3 or x.shape[2] != self.channel):
            raise UserError(f"glif was built for [T, B, channel={self.channel}, ...] and got {list(x.shape)}")
        alpha, beta, gamma = (self.over_time(self.gate(p), x) for p in (self.alpha, self.beta, self.gamma))
        parameters = (self.tau, self.Vth, self.leak, self.conduct, self.reVth)
        tau, threshold, leak, conduct, reset = (self.over_time(torch.sigmoid(p), x) for p in parameters)
        kept, lost = 1 - alpha * (1 - tau), (1 - alpha) * leak
        gain, taken = 1 - beta * (1 - conduct), (1 - gamma) * reset
        u: Tensor | float = 0.0
        s: Tensor | float = 0.0
        spikes = []
        for t, current in enumerate(x):
            u = kept[t] * u * (1 - gamma[t] * s) - lost[t] + gain[t] * current - taken[t] * s
            s = self.surrogate.spike(u - threshold[t])
            spikes.append(s)
        return torch.stack(spikes)

    def gate(self, parameter: Tensor) -> Tensor:
        """A gate's value, 0 to 1."""
        return torch.sigmoid(parameter) if self.learn_gates else (parameter > 0).to(parameter.dtype)

    def over_time(self, value: Tensor, x: Tensor) -> Tensor:
        """The value `[T, ...]`, shaped so that each step's part broadcasts over `[B, channel, ...]`."""
        per_layer = 0 if self.channel is None else 1
        if value.dim() == per_layer:
            value = value.expand(self.step, *value.shape)
        space = x.dim() - 3 if per_layer else 0
        return value.to(x.dtype).reshape(*value.shape, *(1,) * space)

    def extra_repr(self) -> str:
        text = f"step={self.step}, channel={self.channel}, per_step={self.per_step}"
        return f"{text}, learn_gates={self.learn_gates}, surrogate={self.surrogate.spec}"


def _logit(name: str, value: float, shape: tuple[int, ...]) -> Tensor:
    """A parameter's values whose sigmoid is `value`."""
    if not 0 < value < 1:
        raise UserError(f"glif: {name} must be between 0 and 1, not {value}: it is learned as a sigmoid")
    return torch.full(shape, math.log(value / (1 - value)))
