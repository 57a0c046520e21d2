"""`zoo::integrate_and_fire`: a neuron's whole time loop as one operator, whatever device it runs on.

It saves its input and nothing else: the backward pass computes the membrane again. It has a fake implementation
and a gradient, so that torch.compile takes it in without a break; it has no second derivative.
"""

from __future__ import annotations

import importlib
import logging
import os
from functools import cache, lru_cache
from types import ModuleType

import torch
from torch import Tensor

from st_utils.errors import UserError
from st_utils.kernels.common.eager import eager, eager_gradient, watched
from st_utils.kernels.node.form import Form, read, written

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# A backend's module in an operator's folder, and the kind of device that `auto` gives it to.
MODULES = {"cpu": "cpu", "triton": "cuda"}
DEVICES = {"cpu": "cpu", "cuda": "triton"}
log = logging.getLogger(__name__)


def integrate_and_fire(x: Tensor, decay: Tensor | float, form: Form, backend: str) -> Tensor:
    """Spikes of the input currents `[T, ...]` in float32 or half precision, in x's dtype.

    `backend` is what `backend_for` said; the decay gets a gradient where it is a tensor (no axes).
    """
    return _run(x, *arguments(decay, form), backend)


def arguments(decay: Tensor | float, form: Form) -> tuple[Tensor | None, str]:
    """A neuron as an op takes it: its decay where that is learned, and all else in a string."""
    return (decay, _text(0.0, *form)) if isinstance(decay, Tensor) else (None, _text(decay, *form))


def backend_for(x: Tensor, form: Form | None, backend: str) -> str | None:
    """The backend that runs x: the one told, or what fits the device for `auto`; None is plain torch.

    Plain torch also takes its place where counters, exporters or transforms look on (see eager.py).

    Raises UserError for a told backend that can't run on x's device.
    """
    if backend == "torch" or form is None or x.dtype not in DTYPES or x.dim() == 0:
        return None
    device = x.device.type
    chosen = DEVICES.get(device) if backend == "auto" else backend
    interpreted = chosen == "triton" and device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if backend != "auto" and DEVICES.get(device) != chosen and not interpreted:
        raise UserError(f"backend={backend} can't run a tensor on {device}: write backend=auto")
    return chosen if chosen and not watched(x) and _usable(chosen, x.dtype, *form) else None


# Constants to torch.compile, which looks past a cache.
@torch.compiler.assume_constant_result
def _text(decay: float, *form: object) -> str:
    return written(Form(*form)._replace(decay=decay))


@torch.compiler.assume_constant_result
def _usable(backend: str, dtype: torch.dtype, *form: object) -> bool:
    """Whether the backend is there and computes this."""
    return _check(backend, dtype, Form(*form))


@lru_cache(maxsize=1024)
def _check(backend: str, dtype: torch.dtype, form: Form) -> bool:
    if not _available(backend):
        return False
    supported = kernels(backend).supports(dtype, form)
    if not supported:
        log.info("backend %s has no kernel for %s in %s: plain torch takes its place", backend, form, dtype)
    return supported


@cache
def _available(backend: str) -> bool:
    if there := kernels(backend).available():
        log.info("neurons run in the %s backend", backend)
    else:
        log.warning("backend %s is not available: plain torch takes its place", backend)
    return there


@cache
def kernels(backend: str, operator: str = "node") -> ModuleType:
    """The module with a backend's kernels of an operator: `node`, or `norm_node`."""
    return importlib.import_module(f"st_utils.kernels.{operator}.{MODULES[backend]}")


def steps_outermost(x: Tensor) -> bool:
    """Whether memory holds one time step after the other, each without gaps, in whatever order of axes."""
    inner = x.numel() // max(x.shape[0], 1)
    return x.is_contiguous() or (x.stride(0) == inner and torch.ops.aten.is_non_overlapping_and_dense(x[0]))


def no_second_derivative(_ctx, *_grads: Tensor) -> None:
    """The gradient of an op that is a gradient. Raises UserError."""
    raise UserError("the fused neurons have no second derivative: build the node with backend=torch")


def _dense(x: Tensor) -> Tensor:
    """x with its steps outermost in memory: as it is, in the order of its first step, or contiguous."""
    if steps_outermost(x):
        return x
    if not torch.ops.aten.is_non_overlapping_and_dense(x[0]):
        return x.contiguous()
    return x.new_empty_strided(x.shape, (x[0].numel(), *x.stride()[1:])).copy_(x)


def _like(x: Tensor, other: Tensor) -> Tensor:
    """x in the other's layout."""
    return x if x.stride() == other.stride() else torch.empty_like(other).copy_(x)


def _fire(x: Tensor, decay: Tensor | None, form: str, backend: str) -> Tensor:
    return kernels(backend).forward(_dense(x), decay, read(form))


_fire_op = torch.library.custom_op("zoo::integrate_and_fire", _fire, mutates_args=())


@_fire_op.register_fake
def _(x: Tensor, decay: Tensor | None, form: str, backend: str) -> Tensor:
    return torch.empty_like(_dense(x))


def _fire_backward(grad: Tensor, x: Tensor, decay: Tensor | None, form: str, backend: str) -> tuple[Tensor, Tensor]:
    x = _dense(x)
    grad_x, grad_decay = kernels(backend).backward(_like(grad, x), x, decay, read(form))
    return grad_x, x.new_empty(0, dtype=torch.float32) if grad_decay is None else grad_decay


_fire_backward_op = torch.library.custom_op("zoo::integrate_and_fire_backward", _fire_backward, mutates_args=())


@_fire_backward_op.register_fake
def _(grad: Tensor, x: Tensor, decay: Tensor | None, form: str, backend: str) -> tuple[Tensor, Tensor]:
    return torch.empty_like(_dense(x)), x.new_empty(0 if decay is None else (), dtype=torch.float32)


def _save(ctx, inputs: tuple, output: Tensor) -> None:
    x, decay, ctx.form, ctx.backend = inputs
    ctx.save_for_backward(x, decay)


def _differentiate(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, decay = ctx.saved_tensors
    grad_x, grad_decay = _gradient(grad, x, decay, ctx.form, ctx.backend)
    return grad_x, None if decay is None else grad_decay, None, None


_fire_op.register_autograd(_differentiate, setup_context=_save)
_fire_backward_op.register_autograd(no_second_derivative)
_run = eager(_fire_op, _fire, _save, _differentiate)
_gradient = eager_gradient(_fire_backward_op, _fire_backward)
