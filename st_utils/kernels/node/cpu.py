"""The CPU backend of the integrate-and-fire neurons: cpu.cpp, compiled at first use, over torch's memory.

Both functions take tensors of one dtype (float32, float16 or bfloat16; the membrane is float32), one layout and
one device, the CPU, with all of a time step before all of the next; `Form` is in form.py.
"""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_float, c_int, c_int32, c_int64, c_void_p

import torch
from torch import Tensor

from st_utils.kernels.common.compiler import library
from st_utils.kernels.common.threads import threads
from st_utils.kernels.node.form import Form

DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
CHARGES = ("if", "decay", "plain")
DETACHED = ("nothing", "reset", "membrane")


class CForm(ctypes.Structure):
    """`struct Form` of neuron.h."""

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
    """Spikes of the input currents `[T, ...]`, like x."""
    spikes = torch.empty_like(x)
    if x.numel():
        sizes = x.shape[0], x.numel() // x.shape[0]
        _library().zoo_forward(
            DTYPES[x.dtype], x.data_ptr(), spikes.data_ptr(), *sizes, c_form(form, decay), threads(x)
        )
    return spikes


def backward(grad: Tensor, x: Tensor, decay: Tensor | None, form: Form) -> tuple[Tensor, Tensor | None]:
    """Gradients of x, like x, and of the decay where that is learned: a tensor (float32, no axes)."""
    grad_x, learn, grad_decay = torch.empty_like(x), decay is not None, 0.0
    if x.numel():
        sizes = x.shape[0], x.numel() // x.shape[0]
        pointers = grad.data_ptr(), x.data_ptr(), grad_x.data_ptr()
        grad_decay = _library().zoo_backward(
            DTYPES[x.dtype], *pointers, *sizes, c_form(form, decay), surrogate(_library(), form), learn, threads(x)
        )
    return grad_x, torch.tensor(grad_decay, dtype=torch.float32) if learn else None


def c_form(form: Form, decay: Tensor | None) -> CForm:
    """The form as the C++ reads it."""
    hard = form.v_reset is not None
    return CForm(
        *(CHARGES.index(form.charge), not hard, DETACHED.index(form.detach), form.strict),
        *(form.threshold, form.v_reset if hard else 0.0, form.alpha, form.beta),
        form.decay if decay is None else float(decay),
    )


def surrogate(found: ctypes.CDLL, form: Form) -> c_void_p:
    """The address of the surrogate's function in a compiled library."""
    return ctypes.cast(getattr(found, f"surrogate_{form.surrogate}"), c_void_p)


def _library() -> ctypes.CDLL | None:
    found = library("node/cpu")
    if found and found.zoo_backward.restype is not c_double:
        pointer, size, form = c_void_p, c_int64, ctypes.POINTER(CForm)
        found.zoo_forward.argtypes = [c_int, pointer, pointer, size, size, form, c_int]
        found.zoo_forward.restype = None
        found.zoo_backward.argtypes = [c_int, *[pointer] * 3, size, size, form, pointer, c_int, c_int]
        found.zoo_backward.restype = c_double
    return found
