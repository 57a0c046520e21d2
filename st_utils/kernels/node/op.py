"""`zoo::integrate_and_fire`: a neuron's whole time loop as one operator, on any device.

    form = Form(charge="decay", threshold=1.0, v_reset=0.0, detach="reset", surrogate="sigmoid", alpha=4.0)
    integrate_and_fire(torch.full((5, 1), 1.5), 0.5, form, backend="cpu").flatten()     # 0, 1, 0, 1, 0

Definition: st_utils/kernels/node/definition.py. Kernels: `cpu.py` (C++) and `cuda.py` (Triton). The operator saves x
and nothing else for the backward pass, which computes the membrane again. Its fake implementation and its gradient let
torch.compile take it in without a graph break. It has no second derivative.
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
from st_utils.kernels.node.form import Form, from_json, to_json

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MODULES = {"cpu": "cpu", "triton": "cuda"}  # a backend's module in an operator's folder
AUTO = {"cpu": "cpu", "cuda": "triton"}  # the backend that `auto` chooses for a type of device
log = logging.getLogger(__name__)


def integrate_and_fire(x: Tensor, decay: Tensor | float, form: Form, backend: str) -> Tensor:
    """Spikes of the input currents `[T, ...]`, float32 or half precision, in x's dtype.

    Args:
        decay: 1 / tau; a tensor without axes gets a gradient.
        backend: the answer of `backend_for`.
    """
    return _run(x, *arguments(decay, form), backend)


def arguments(decay: Tensor | float, form: Form) -> tuple[Tensor | None, str]:
    """The operator's arguments `decay` and `form`: a learned decay as a tensor, a constant one within the form."""
    return (decay, _form_json(0.0, *form)) if isinstance(decay, Tensor) else (None, _form_json(decay, *form))


def backend_for(x: Tensor, form: Form | None, backend: str) -> str | None:
    """The backend that runs x, or None for plain torch; `auto` chooses by x's device.

    Plain torch also runs where counters, exporters or transforms look on (see `eager.py`). Raises UserError where
    `backend` can't run on x's device.
    """
    if backend == "torch" or form is None or x.dtype not in DTYPES or x.dim() == 0:
        return None
    device = x.device.type
    chosen = AUTO.get(device) if backend == "auto" else backend
    interpreted = chosen == "triton" and device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if backend != "auto" and AUTO.get(device) != chosen and not interpreted:
        raise UserError(f"backend={backend} can't run a tensor on {device}: write backend=auto")
    return chosen if chosen and not watched(x) and _has_kernel(chosen, x.dtype, *form) else None


# assume_constant_result makes torch.compile call the function while it traces and take the result as a constant. It
# would otherwise trace through json, logging and importlib, past the caches, and break the graph there.
@torch.compiler.assume_constant_result
def _form_json(decay: float, *form: object) -> str:
    return to_json(Form(*form)._replace(decay=decay))


@torch.compiler.assume_constant_result
def _has_kernel(backend: str, dtype: torch.dtype, *form: object) -> bool:
    return has_kernel(backend, dtype, Form(*form))


@lru_cache(maxsize=1024)
def has_kernel(backend: str, dtype: torch.dtype, form: Form) -> bool:
    """Whether the backend is available and computes this neuron in this dtype; the log says why not, once."""
    if not _available(backend):
        return False
    supported = kernels(backend).supports(dtype, form)
    if not supported:
        log.info("backend %s has no kernel for %s in %s: plain torch takes its place", backend, form, dtype)
    return supported


@cache
def _available(backend: str) -> bool:
    if found := kernels(backend).available():
        log.info("neurons run in the %s backend", backend)
    else:
        log.warning("backend %s is not available: plain torch takes its place", backend)
    return found


@cache
def kernels(backend: str, operator: str = "node") -> ModuleType:
    """A backend's module in the folder of an operator, `node` or `norm_node`."""
    return importlib.import_module(f"st_utils.kernels.{operator}.{MODULES[backend]}")


def steps_outermost(x: Tensor) -> bool:
    """Whether memory holds one time step after the other, each without gaps, its axes in any order."""
    elements = x.numel() // max(x.shape[0], 1)  # of a step
    return x.is_contiguous() or (x.stride(0) == elements and torch.ops.aten.is_non_overlapping_and_dense(x[0]))


def no_second_derivative(_ctx, *_grads: Tensor) -> None:
    """The gradient of an operator that is a gradient itself. Raises UserError."""
    raise UserError("the fused neurons have no second derivative: build the node with backend=torch")


def _with_steps_outermost(x: Tensor) -> Tensor:
    """x, copied only where a kernel can't walk through it as `[T, n]`; within a step its axes keep their order."""
    if steps_outermost(x):
        return x
    if not torch.ops.aten.is_non_overlapping_and_dense(x[0]):
        return x.contiguous()
    return x.new_empty_strided(x.shape, (x[0].numel(), *x.stride()[1:])).copy_(x)


def _with_strides_of(x: Tensor, other: Tensor) -> Tensor:
    """x, copied where its strides are not those of the other: a kernel indexes both alike."""
    return x if x.stride() == other.stride() else torch.empty_like(other).copy_(x)


def _integrate_and_fire(x: Tensor, decay: Tensor | None, form: str, backend: str) -> Tensor:
    return kernels(backend).forward(_with_steps_outermost(x), decay, from_json(form))


_op = torch.library.custom_op("zoo::integrate_and_fire", _integrate_and_fire, mutates_args=())


@_op.register_fake
def _(x: Tensor, decay: Tensor | None, form: str, backend: str) -> Tensor:
    return torch.empty_like(_with_steps_outermost(x))


def _backward(grad: Tensor, x: Tensor, decay: Tensor | None, form: str, backend: str) -> tuple[Tensor, Tensor]:
    x = _with_steps_outermost(x)
    grad_x, grad_decay = kernels(backend).backward(_with_strides_of(grad, x), x, decay, from_json(form))
    # An operator's schema has no optional result: an empty tensor stands for None.
    return grad_x, x.new_empty(0, dtype=torch.float32) if grad_decay is None else grad_decay


_backward_op = torch.library.custom_op("zoo::integrate_and_fire_backward", _backward, mutates_args=())


@_backward_op.register_fake
def _(grad: Tensor, x: Tensor, decay: Tensor | None, form: str, backend: str) -> tuple[Tensor, Tensor]:
    return torch.empty_like(_with_steps_outermost(x)), x.new_empty(0 if decay is None else (), dtype=torch.float32)


def _save(ctx, inputs: tuple, output: Tensor) -> None:
    x, decay, ctx.form, ctx.backend = inputs
    ctx.save_for_backward(x, decay)


def _differentiate(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, decay = ctx.saved_tensors
    grad_x, grad_decay = _gradient(grad, x, decay, ctx.form, ctx.backend)
    return grad_x, None if decay is None else grad_decay, None, None  # form and backend have no gradient


_op.register_autograd(_differentiate, setup_context=_save)
_backward_op.register_autograd(no_second_derivative)
_run = eager(_op, _integrate_and_fire, _save, _differentiate)
_gradient = eager_gradient(_backward_op, _backward)
