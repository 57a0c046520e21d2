"""Surrogates: the Heaviside step forward, a smooth stand-in for its derivative backward.

    surrogate = create("surrogate", "atan(alpha=2.0)")
    surrogate.spike(torch.tensor([-0.1, 0.0, 0.1]))      # 0, 1, 1; backward: surrogate.gradient(u)

u is the membrane potential minus the threshold. A surrogate is a shape of `st_utils/kernels/node/surrogates.py`, its
`kernel`, with two numbers a and b, its `kernel_numbers`. With `strict` it fires where u > 0 instead of u >= 0
(BrainCog's atan, gate and qgate do so, SpikingJelly never does).
"""

from __future__ import annotations

import math

from torch import Tensor

from registry import register
from st_utils.errors import UserError
from st_utils.kernels.node.surrogates import SHAPES, spike


class Surrogate:
    """Base class: `spike(u)` is 0 or 1 in u's dtype, and `gradient(u)` its derivative.

    A subclass names the shape of its gradient in `kernel`; the fused kernels then run it. One that has a `gradient` of
    its own instead runs in plain torch.

    Args:
        alpha: sharpness of the gradient, as each class's formula uses it.
        strict: fire where u > 0 instead of u >= 0.
    """

    kernel: str | None = None
    shape: str | None = None  # of `gradient`; inherited also by a class that fires differently and so has no kernel

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Forget the inherited `kernel` where a subclass changes the arithmetic: a kernel would ignore the change."""
        super().__init_subclass__(**kwargs)
        if {"gradient", "fires", "spike"} & vars(cls).keys() and "kernel" not in vars(cls):
            cls.kernel = None
        cls.shape = cls.kernel or cls.shape

    def __init__(self, alpha: float = 1.0, strict: bool = False):
        if alpha <= 0:
            raise UserError(f"a surrogate's alpha must be above 0, not {alpha}")
        self.alpha, self.strict = alpha, strict

    def kernel_numbers(self) -> tuple[float, float]:
        """The a and b of the shape `kernel`."""
        return float(self.alpha), 0.0

    def gradient(self, u: Tensor) -> Tensor:
        """d spike / d u, elementwise."""
        if self.shape is None:
            raise NotImplementedError
        return SHAPES[self.shape](u, *self.kernel_numbers())

    def fires(self, u: Tensor) -> Tensor:
        """Where a neuron spikes (bool)."""
        return u > 0 if self.strict else u >= 0

    def spike(self, u: Tensor) -> Tensor:
        return spike(u, self)


@register.surrogate("sigmoid", source="Zenke & Ganguli 2018, arXiv:1705.11146; as SpikingJelly and BrainCog use it")
class Sigmoid(Surrogate):
    """alpha s (1 - s) with s = sigmoid(alpha u)."""

    kernel = "sigmoid"

    def __init__(self, alpha: float = 4.0, strict: bool = False):
        super().__init__(alpha, strict)


@register.surrogate("atan", source="Fang et al. 2021, arXiv:2007.05785")
class ATan(Surrogate):
    """alpha / 2 / (1 + (pi / 2 alpha u)^2)."""

    kernel = "cauchy"

    def __init__(self, alpha: float = 2.0, strict: bool = False):
        super().__init__(alpha, strict)

    def kernel_numbers(self) -> tuple[float, float]:
        return self.alpha / 2, math.pi / 2 * self.alpha


@register.surrogate("qgate", aliases=("piecewise_quadratic",), source="Esser et al. 2016, arXiv:1603.08270; BrainCog")
class QGate(Surrogate):
    """max(0, alpha - alpha^2 |u|), the derivative of a piecewise quadratic."""

    kernel = "triangle"

    def __init__(self, alpha: float = 2.0, strict: bool = False):
        super().__init__(alpha, strict)

    def kernel_numbers(self) -> tuple[float, float]:
        return self.alpha, self.alpha**2


@register.surrogate("triangle", source="Deng et al. 2022 (TET), arXiv:2202.11946; DTA-SNN")
class Triangle(QGate):
    """max(0, 1 - |u| / width) / width: the triangle of unit area that reaches `width` to either side."""

    def __init__(self, width: float = 1.0, strict: bool = False):
        if width <= 0:
            raise UserError(f"the triangle's width must be above 0, not {width}")
        super().__init__(1 / width, strict)


@register.surrogate("gate", source="BrainCog")
class Gate(Surrogate):
    """1 where |u| < 1 / alpha, else 0: height 1 whatever alpha is."""

    kernel = "box"

    def __init__(self, alpha: float = 2.0, strict: bool = False):
        super().__init__(alpha, strict)

    def kernel_numbers(self) -> tuple[float, float]:
        return 1.0, 1 / self.alpha


@register.surrogate("rectangle", aliases=("rect",), source="Wu et al. 2018 (STBP), arXiv:1706.02609")
class Rectangle(Surrogate):
    """alpha where |u| < 1 / (2 alpha), else 0: a rectangle of unit area."""

    kernel = "box"

    def kernel_numbers(self) -> tuple[float, float]:
        return self.alpha, 0.5 / self.alpha
