"""The other surrogates of SpikingJelly 2.0.0 and BrainCog 0.2.7.19 that are a closed form of u.

    create("surrogate", "erf(alpha=2.0)").gradient(torch.zeros(1))       # 2 / sqrt(pi), 1.1284

Arguments have the names of the package that a surrogate comes from. These have another name or form here:

    SpikingJelly's PiecewiseQuadratic is `qgate` (alpha 1 by default there, 2 here, as in BrainCog), its Rect is
    `rectangle`, its DeterministicPass `straight_through`.
    BrainCog's QGateGrad, GateGrad and AtanGrad are `qgate`, `gate` and `atan`, with strict=true; BackEIGateGrad
    is `rectangle(strict=true)`, STDPGrad `relu(strict=true)`, ReLUGrad `relu(alpha=2)`.

These are left out, as they are no step function of u alone:

    PoissonPass (SpikingJelly) fires at random; its gradient is straight_through's.
    MultiLevelSpikeCount (SpikingJelly) and RoundGrad (BrainCog) fire counts: see the node `ilif`.
    EIGrad (BrainCog) fires -1, 0 or 1: see the node `braincog.BackEINode`.
    ReLUGrad and AtanGrad (BrainCog) can learn alpha; alpha is fixed here. The nodes `braincog.*` learn it.
"""

from __future__ import annotations

import math

from registry import register
from st_utils.errors import UserError
from st_utils.node.surrogate import Surrogate


@register.surrogate("piecewise_exp", source="Shrestha & Orchard 2018 (SLAYER), arXiv:1810.08646; SpikingJelly")
class PiecewiseExp(Surrogate):
    """alpha / 2 exp(-alpha |u|)."""

    kernel = "exponential"

    def kernel_numbers(self) -> tuple[float, float]:
        return self.alpha / 2, self.alpha


@register.surrogate("soft_sign", source="SpikingJelly")
class SoftSign(Surrogate):
    """alpha / 2 / (1 + alpha |u|)^2, the derivative of (1 + softsign(alpha u)) / 2."""

    kernel = "soft_sign"

    def __init__(self, alpha: float = 2.0, strict: bool = False):
        super().__init__(alpha, strict)

    def kernel_numbers(self) -> tuple[float, float]:
        return self.alpha / 2, self.alpha


@register.surrogate("super_spike", source="Zenke & Ganguli 2018, arXiv:1705.11146; SpikingJelly")
class SuperSpike(Surrogate):
    """alpha / (1 + |u|)^2."""

    kernel = "soft_sign"

    def kernel_numbers(self) -> tuple[float, float]:
        return self.alpha, 1.0


@register.surrogate("nonzero_sign_log_abs", aliases=("log_abs",), source="SpikingJelly")
class NonzeroSignLogAbs(Surrogate):
    """1 / (1 / alpha + |u|), the derivative of sign(u) log(1 + alpha |u|): its tails have no finite area."""

    kernel = "hyperbola"

    def kernel_numbers(self) -> tuple[float, float]:
        return 1.0, 1 / self.alpha


@register.surrogate("erf", aliases=("gaussian",), source="Esser et al. 2015; Yin et al. 2020; SpikingJelly")
class Erf(Surrogate):
    """alpha / sqrt(pi) exp(-(alpha u)^2): a normal density of standard deviation 1 / (alpha sqrt(2))."""

    kernel = "gaussian"

    def __init__(self, alpha: float = 2.0, strict: bool = False):
        super().__init__(alpha, strict)

    def kernel_numbers(self) -> tuple[float, float]:
        return self.alpha / math.sqrt(math.pi), self.alpha


@register.surrogate("piecewise_leaky_relu", source="SpikingJelly")
class PiecewiseLeakyReLU(Surrogate):
    """1 / (2 w) where |u| < w, else c."""

    kernel = "plateau"

    def __init__(self, w: float = 1.0, c: float = 0.01, strict: bool = False):
        if w <= 0:
            raise UserError(f"piecewise_leaky_relu: w must be above 0, not {w}")
        super().__init__(strict=strict)
        self.w, self.c = w, c

    def kernel_numbers(self) -> tuple[float, float]:
        return self.w, self.c


@register.surrogate("squarewave_fourier_series", aliases=("squarewave",), source="SpikingJelly")
class SquarewaveFourierSeries(Surrogate):
    """4 / period times the sum of cos((2 i - 1) 2 pi u / period) for i from 1 to n - 1.

    The derivative of a square wave's Fourier series; n counts one more than the terms, as in SpikingJelly.
    """

    kernel = "fourier"

    def __init__(self, n: int = 2, period: float = 8.0, strict: bool = False):
        if n < 2 or period <= 0:
            raise UserError(f"squarewave_fourier_series: n={n} must be at least 2, and period={period} above 0")
        super().__init__(strict=strict)
        self.n, self.period = n, period

    def kernel_numbers(self) -> tuple[float, float]:
        return self.n, 2 * math.pi / self.period


@register.surrogate("s2nn", source="Suetake et al. 2022 (S2NN), arXiv:2201.10879; SpikingJelly")
class S2NN(Surrogate):
    """alpha s (1 - s) with s = sigmoid(alpha u) where u < 0, else beta / (1 + u)."""

    kernel = "s2nn"

    def __init__(self, alpha: float = 4.0, beta: float = 1.0, strict: bool = False):
        super().__init__(alpha, strict)
        self.beta = beta

    def kernel_numbers(self) -> tuple[float, float]:
        return self.alpha, self.beta


@register.surrogate("q_pseudo_spike", source="Herranz-Celotti & Rouat 2022, arXiv:2202.00282; SpikingJelly")
class QPseudoSpike(Surrogate):
    """(1 + 2 |u| / (alpha - 1))^-alpha: alpha sets how heavy the tails are, the height is 1."""

    kernel = "power"

    def __init__(self, alpha: float = 2.0, strict: bool = False):
        super().__init__(alpha, strict)
        if alpha <= 1:
            raise UserError(f"q_pseudo_spike: alpha must be above 1, not {alpha}")

    def kernel_numbers(self) -> tuple[float, float]:
        return self.alpha, 2 / (self.alpha - 1)


@register.surrogate("relu", aliases=("relu_like",), source="BrainCog")
class ReLU(Surrogate):
    """alpha where u > 0, else 0."""

    kernel = "above"


@register.surrogate("leaky_k_relu", aliases=("leaky_relu",), source="SpikingJelly")
class LeakyKReLU(Surrogate):
    """k where u >= 0, else leak."""

    kernel = "slopes"

    def __init__(self, leak: float = 0.0, k: float = 1.0, strict: bool = False):
        super().__init__(strict=strict)
        self.leak, self.k = leak, k

    def kernel_numbers(self) -> tuple[float, float]:
        return self.k, self.leak


@register.surrogate("log_tailed_relu", source="Cai et al. 2017, arXiv:1702.00953; SpikingJelly")
class LogTailedReLU(Surrogate):
    """alpha where u <= 0, 1 where 0 < u <= 1, else 1 / u."""

    kernel = "log_tail"

    def __init__(self, alpha: float = 0.0, strict: bool = False):
        super().__init__(strict=strict)
        self.alpha = alpha  # a slope, not a sharpness: 0 is one


@register.surrogate("fake_numerical_gradient", source="SpikingJelly")
class FakeNumericalGradient(Surrogate):
    """min(1 / |u|, alpha). At u = -0.0, where SpikingJelly gives -inf, it is alpha."""

    kernel = "capped_hyperbola"

    def __init__(self, alpha: float = 0.3, strict: bool = False):
        super().__init__(alpha, strict)


@register.surrogate(
    "straight_through", aliases=("deterministic_pass",), source="Bengio et al. 2013, arXiv:1308.3432; BrainCog"
)
class StraightThrough(Surrogate):
    """1 everywhere."""

    kernel = "slopes"

    def __init__(self, strict: bool = False):
        super().__init__(strict=strict)

    def kernel_numbers(self) -> tuple[float, float]:
        return 1.0, 1.0
