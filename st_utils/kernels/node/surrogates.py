"""The shapes of a surrogate gradient in plain torch, and the spike that has one as its derivative.

    SHAPES["box"](torch.tensor([-0.4, 0.0, 0.6]), 1.0, 0.5)       # ds/du at u = h - threshold: 1, 1, 0

These functions are the definition of `surrogates.h` (C++) and of `surrogate` in `triton_kernels.py`, which have one
line per shape. A class of `st_utils/node/surrogate*.py` names its shape in `kernel` and its a and b in
`kernel_numbers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class HasGradient(Protocol):
    """What `spike` needs: where a neuron fires, and the derivative that stands in for the step's."""

    def fires(self, u: Tensor) -> Tensor: ...

    def gradient(self, u: Tensor) -> Tensor: ...


def spike(u: Tensor, surrogate: HasGradient) -> Tensor:
    """The Heaviside step of u in u's dtype, 0 or 1; backward, ds/du = surrogate.gradient(u)."""
    return _Spike.apply(u, surrogate)


class _Spike(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, surrogate: HasGradient) -> Tensor:
        return surrogate.fires(u).to(u.dtype)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, HasGradient], output: Tensor) -> None:
        u, ctx.surrogate = inputs
        ctx.save_for_backward(u)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (u,) = ctx.saved_tensors
        return grad * ctx.surrogate.gradient(u), None


def sigmoid(u: Tensor, a: float, b: float) -> Tensor:
    """a s (1 - s), s = sigmoid(a u)."""
    s = torch.sigmoid(a * u)
    return a * s * (1 - s)


def cauchy(u: Tensor, a: float, b: float) -> Tensor:
    """a / (1 + (b u)^2)."""
    return a / (1 + (b * u).square())


def triangle(u: Tensor, a: float, b: float) -> Tensor:
    """max(0, a - b |u|)."""
    return (a - b * u.abs()).clamp(min=0)


def box(u: Tensor, a: float, b: float) -> Tensor:
    """a where |u| < b, else 0."""
    return a * (u.abs() < b).to(u.dtype)


def plateau(u: Tensor, a: float, b: float) -> Tensor:
    """1 / (2 a) where |u| < a, else b."""
    return torch.full_like(u, b).masked_fill(u.abs() < a, 0.5 / a)


def exponential(u: Tensor, a: float, b: float) -> Tensor:
    """a exp(-b |u|)."""
    return a * torch.exp(-b * u.abs())


def gaussian(u: Tensor, a: float, b: float) -> Tensor:
    """a exp(-(b u)^2)."""
    return a * torch.exp(-(b * u).square())


def soft_sign(u: Tensor, a: float, b: float) -> Tensor:
    """a / (1 + b |u|)^2."""
    return a / (1 + b * u.abs()).square()


def hyperbola(u: Tensor, a: float, b: float) -> Tensor:
    """a / (b + |u|)."""
    return a / (b + u.abs())


def capped_hyperbola(u: Tensor, a: float, b: float) -> Tensor:
    """min(1 / |u|, a)."""
    return u.abs().reciprocal().clamp(max=a)


def power(u: Tensor, a: float, b: float) -> Tensor:
    """(1 + b |u|)^-a."""
    return (1 + b * u.abs()).pow(-a)


def log_tail(u: Tensor, a: float, b: float) -> Tensor:
    """a where u <= 0, else 1 / max(u, 1)."""
    return torch.where(u > 0, 1 / u.clamp(min=1), a)


def above(u: Tensor, a: float, b: float) -> Tensor:
    """a where u > 0, else 0."""
    return a * (u > 0).to(u.dtype)


def slopes(u: Tensor, a: float, b: float) -> Tensor:
    """a where u >= 0, else b."""
    return torch.full_like(u, b).masked_fill(u >= 0, a)


def s2nn(u: Tensor, a: float, b: float) -> Tensor:
    """a s (1 - s), s = sigmoid(a u), where u < 0, else b / (1 + u)."""
    return torch.where(u < 0, sigmoid(u, a, b), b / (1 + u))


def fourier(u: Tensor, a: float, b: float) -> Tensor:
    """2 b / pi times the sum of cos((2 i - 1) b u) for i from 1 to a - 1."""
    turn = b * u
    return 2 * b / math.pi * sum(torch.cos((2 * i - 1) * turn) for i in range(1, int(a)))


SHAPES: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    shape.__name__: shape
    for shape in (
        *(sigmoid, cauchy, triangle, box, plateau, exponential, gaussian, soft_sign),
        *(hyperbola, capped_hyperbola, power, log_tail, above, slopes, s2nn, fourier),
    )
}
