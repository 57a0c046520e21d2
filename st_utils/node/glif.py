"""GLIF: a neuron that learns, channel by channel, how it leaks, integrates and resets."""

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

        u = (1 - alpha (1 - tau)) u (1 - gamma s) - (1 - alpha) leak
            + (1 - beta (1 - conduct)) x - (1 - gamma) reset s          (s: the spike of the step before)
        s = step(u - threshold)

    So alpha = 1 is an exponential leak and 0 a linear one, beta = 1 scales the input by conduct, gamma = 1
    resets to 0 and gamma = 0 subtracts. Each symbol is the sigmoid of a parameter; the parameters have the
    authors' names (alpha, beta, gamma, tau, Vth, leak, conduct, reVth) and shapes.

    Args:
        step: T, the number of time steps; an input of any other raises UserError.
        channel: one value a channel, on axis 2 of [T, B, channel, ...]; none has one a layer.
        per_step: one value a step for tau, leak, threshold and reset too, as conduct always has.
        gates: alpha, beta and gamma at the start. The paper's are these; the benchmark's, and those of the
            authors' layer-wise class, are (0.45, 0.35, 0.45): a sign in front of the logarithm differs.
        learn_gates: false fixes each gate at 1 where it is above 0.5, else at 0 (the benchmark's default); the
            gates are then no trainable parameters, and what they close has gradient 0.
        decay: tau at the start, the share of the potential that the exponential leak leaves.
        threshold: at the start, of the firing and of the subtracting reset.
        leak: at the start, what the linear leak takes in a step; none is threshold / (2 step).
        conduct: at the start.
        surrogate: what stands in for the step's derivative.

    Values at the start must be between 0 and 1, exclusive. The reset carries its gradient.
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
        wide = () if channel is None else (channel,)
        long = (step, *wide)
        for name, start in zip(("alpha", "beta", "gamma"), gates, strict=True):
            setattr(self, name, nn.Parameter(_logit("gates", start, wide), requires_grad=learn_gates))
        usual = long if per_step else wide
        self.tau = nn.Parameter(_logit("decay", decay, usual))
        self.Vth = nn.Parameter(_logit("threshold", threshold, usual))
        self.leak = nn.Parameter(_logit("leak", leak, usual))
        self.conduct = nn.Parameter(_logit("conduct", conduct, long))
        self.reVth = nn.Parameter(_logit("threshold", threshold, usual))

    def no_weight_decay(self) -> set[str]:
        """Every parameter, with a value a step and channel too: decay would draw each towards a sigmoid of 0.5."""
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
        """`[T, ...]`, each step's part broadcasting over `[B, channel, ...]`."""
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
