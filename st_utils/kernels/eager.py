"""Operators in eager mode without the dispatcher's way through Python, which takes longer than a small layer's kernel.

torch.compile, subclasses of tensors and dispatch modes get the operator itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

PLAIN = (Tensor, nn.Parameter)


def eager(op: Callable, of: Callable, save: Callable, differentiate: Callable) -> Callable:
    """`op`, and in eager mode the function `of` that it is made of with the gradient that it has."""

    def forward(ctx, *inputs: object) -> Tensor | tuple[Tensor, ...]:
        output = of(*inputs)
        save(ctx, inputs, output)
        return output

    # Not with a setup_context of its own, for which torch inspects the signature at every call.
    parts = {"forward": staticmethod(forward), "backward": staticmethod(differentiate)}
    function = type(f"zoo_{of.__name__.strip('_')}", (torch.autograd.Function,), parts)

    def call(x: Tensor, *others: object) -> Tensor | tuple[Tensor, ...]:
        return function.apply(x, *others) if _plain(x) else op(x, *others)

    return call


def eager_gradient(op: Callable, of: Callable) -> Callable:
    """The same for an operator that is a gradient: `of` where nobody asks for a second derivative."""

    def call(x: Tensor, *others: object) -> Tensor | tuple[Tensor, ...]:
        return of(x, *others) if _plain(x) and not torch.is_grad_enabled() else op(x, *others)

    return call


def _plain(x: Tensor) -> bool:
    return not torch.compiler.is_compiling() and type(x) in PLAIN and not is_in_torch_dispatch_mode()
