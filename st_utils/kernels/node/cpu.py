"""Integrate-and-fire neurons on the CPU: `cpu.cpp`, compiled at first use, on torch's memory.

    form = Form(charge="decay", threshold=1.0, v_reset=0.0, detach="reset", surrogate="sigmoid", alpha=4.0, decay=0.5)
    x = torch.full((5, 1), 1.5)
    forward(x, None, form).flatten()                              # 0, 1, 0, 1, 0
    grad_x, grad_decay = backward(torch.ones_like(x), x, None, form)

Definition: st_utils/kernels/node/definition.py. Tensors are float32, float16 or bfloat16 on the CPU, with one time step
after the other in memory (`steps_outermost` in `op.py`), all of one dtype and layout; the membrane is float32.
"""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_float, c_int, c_int32, c_int64, c_void_p

import torch
from torch import Tensor

from st_utils.kernels.common.compiler import library
from st_utils.kernels.common.threads import threads
from st_utils.kernels.node.form import Form

DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}  # enums of neuron.h, in their order
CHARGES = ("if", "decay", "plain")
DETACHED = ("nothing", "reset", "membrane")


class CForm(ctypes.Structure):
    """`struct Form` of `common/neuron.h`."""

    _fields_ = (
        *((name, c_int32) for name in ("charge", "soft", "detach", "strict")),
        *((name, c_float) for name in ("threshold", "v_reset", "alpha", "beta", "decay")),
    )


def available() -> bool:
    """Whether the kernels are compiled, or can be now."""
    return _library() is not None


def supports(dtype: torch.dtype, form: Form) -> bool:
    """Whether the kernels compute this neuron on input of this dtype."""
    return dtype in DTYPES and hasattr(_library(), f"surrogate_{form.surrogate}")


def forward(x: Tensor, decay: Tensor | None, form: Form) -> Tensor:
    """Spikes of the input currents `[T, ...]`, like x; `decay` is the learned 1 / tau, None takes `form.decay`."""
    return forward_into(torch.empty_like(x), x, decay, form)


def forward_into(spikes: Tensor, x: Tensor, decay: Tensor | None, form: Form) -> Tensor:
    """`forward` into existing memory: writes `spikes`, laid out like x, and returns them."""
    if x.numel():
        T = len(x)  # noqa: N806
        _library().zoo_forward(
            *(DTYPES[x.dtype], x.data_ptr(), spikes.data_ptr()),
            *(T, x.numel() // T, c_form(form, decay), threads(x)),
        )
    return spikes


def backward(grad: Tensor, x: Tensor, decay: Tensor | None, form: Form) -> tuple[Tensor, Tensor | None]:
    """dL/dx, like x, and dL/d decay (float32, no axes; None where none is learned), from dL/ds and x."""
    return backward_into(torch.empty_like(x), grad, x, decay, form)


def backward_into(
    grad_x: Tensor, grad: Tensor, x: Tensor, decay: Tensor | None, form: Form
) -> tuple[Tensor, Tensor | None]:
    """`backward` into existing memory: writes `grad_x`, laid out like x, and returns it as `backward` does."""
    learn, grad_decay = decay is not None, 0.0
    if x.numel():
        T = len(x)  # noqa: N806
        grad_decay = _library().zoo_backward(
            *(DTYPES[x.dtype], grad.data_ptr(), x.data_ptr(), grad_x.data_ptr()),
            *(T, x.numel() // T, c_form(form, decay), surrogate(_library(), form), learn, threads(x)),
        )
    return grad_x, torch.tensor(grad_decay, dtype=torch.float32) if learn else None


def c_form(form: Form, decay: Tensor | None) -> CForm:
    """The form as the C++ reads it."""
    return CForm(
        charge=CHARGES.index(form.charge),
        soft=form.v_reset is None,
        detach=DETACHED.index(form.detach),
        strict=form.strict,
        threshold=form.threshold,
        v_reset=form.rest,
        alpha=form.alpha,
        beta=form.beta,
        decay=form.decay if decay is None else float(decay),
    )


def surrogate(compiled: ctypes.CDLL, form: Form) -> c_void_p:
    """The address of the surrogate's function in a compiled library."""
    return ctypes.cast(getattr(compiled, f"surrogate_{form.surrogate}"), c_void_p)


def _library() -> ctypes.CDLL | None:
    compiled = library("node/cpu")
    if compiled and compiled.zoo_backward.restype is not c_double:  # ctypes' default is int
        pointer, size, form = c_void_p, c_int64, ctypes.POINTER(CForm)
        compiled.zoo_forward.argtypes = [c_int, pointer, pointer, size, size, form, c_int]
        compiled.zoo_forward.restype = None
        compiled.zoo_backward.argtypes = [c_int, *[pointer] * 3, size, size, form, pointer, c_int, c_int]
        compiled.zoo_backward.restype = c_double
    return compiled
