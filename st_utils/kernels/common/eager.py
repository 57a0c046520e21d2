"""Operators in eager mode without the dispatcher's way through Python, and torch's own wherever someone looks on.

An operator of this project is called in one of three ways. In eager mode its function runs directly, since the
dispatcher's way through Python takes longer than a small layer's kernel. Under torch.compile the operator itself
stands in the graph. And where a counter, tracer, exporter or transform is at work, `watched` says so, and the caller
computes the same with torch's own operators, which these know.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

PLAIN = (Tensor, nn.Parameter)


def watched(*tensors: Tensor | None) -> bool:
    """Whether a counter, tracer, exporter or transform looks on, to which only torch's own operators mean something.

    These are dispatch modes (FlopCounterMode, FakeTensorMode, make_fx), modes of torch functions, `torch.export`,
    `torch.jit.trace`, the transforms of `torch.func`, forward-mode differentiation, and subclasses of tensors.
    """
    if torch.compiler.is_compiling():
        return torch.compiler.is_exporting()
    return (
        is_in_torch_dispatch_mode()
        or any(type(t) not in PLAIN for t in tensors if t is not None)
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
        or forward_ad._current_level >= 0
        or (torch._C._is_torch_function_mode_enabled() and _function_mode())
    )


def _function_mode() -> bool:
    """Whether torch's functions are looked at: by any mode but that of `torch.set_default_device`."""
    return any(type(mode) is not DeviceContext for mode in _get_current_function_mode_stack())


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
