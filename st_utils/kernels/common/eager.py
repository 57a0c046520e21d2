"""How the project's operators are called: directly in eager mode, and not at all where someone looks on.

    watched(torch.ones(2))                                        # False
    with FlopCounterMode(display=False):
        watched(torch.ones(2))                                    # True: the caller then uses torch's own operators

An operator is called in one of three ways. In eager mode its function runs directly: the dispatcher's path through
Python takes longer than a small layer's kernel. Under torch.compile the operator itself is in the graph. Where a
counter, tracer, exporter or transform is at work, `watched` is true, and the caller computes the same with torch's own
operators, the only ones that those know.
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
    """Whether a counter, tracer, exporter or transform looks on, which knows only torch's own operators.

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
    """Whether a mode intercepts torch's functions, other than that of `torch.set_default_device`."""
    return any(type(mode) is not DeviceContext for mode in _get_current_function_mode_stack())


def eager(op: Callable, implementation: Callable, save: Callable, differentiate: Callable) -> Callable:
    """A function that calls the operator `op`, or in eager mode its implementation with the same gradient.

    Args:
        op: made of the implementation by `torch.library.custom_op`.
        save, differentiate: what `op.register_autograd` got as `setup_context` and `backward`.
    """

    def forward(ctx, *inputs: object) -> Tensor | tuple[Tensor, ...]:
        output = implementation(*inputs)
        save(ctx, inputs, output)
        return output

    # `forward` saves, rather than a `setup_context`: for one torch inspects the signature at every call.
    parts = {"forward": staticmethod(forward), "backward": staticmethod(differentiate)}
    function = type(f"zoo_{implementation.__name__.strip('_')}", (torch.autograd.Function,), parts)

    def call(x: Tensor, *others: object) -> Tensor | tuple[Tensor, ...]:
        return function.apply(x, *others) if _plain(x) else op(x, *others)

    return call


def eager_gradient(op: Callable, implementation: Callable) -> Callable:
    """The same for an operator that is a gradient; the implementation runs where no second derivative is asked for."""

    def call(x: Tensor, *others: object) -> Tensor | tuple[Tensor, ...]:
        return implementation(x, *others) if _plain(x) and not torch.is_grad_enabled() else op(x, *others)

    return call


def _plain(x: Tensor) -> bool:
    """Whether this is eager mode on a tensor of torch's own class."""
    return not torch.compiler.is_compiling() and type(x) in PLAIN and not is_in_torch_dispatch_mode()
