"""Batch norm and neuron as one on the CPU: `cpu_channels_first.cpp` and `cpu_channels_last.cpp`, by x's layout.

    form = Form(charge="decay", threshold=1.0, v_reset=0.0, detach="reset", surrogate="sigmoid", alpha=4.0, decay=0.5)
    norm = Norm(weight=None, bias=None, mean=None, var=None, eps=1e-5)
    spikes, mean, var = forward(torch.randn(4, 2, 3, 8, 8), norm, None, form, steps=4)

Definition: st_utils/kernels/norm_node/definition.py. x is `[T, B, C, ...]`, float32 or half precision, in memory as
written or with its channels last; all else is float32. Forward reads x once from memory and writes spikes; backward
reads x and dL/ds once and writes dL/dx.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_double, c_int, c_int64, c_void_p

import torch
from torch import Tensor

from st_utils.kernels.common.compiler import library
from st_utils.kernels.common.layout import empty_steps
from st_utils.kernels.common.threads import threads
from st_utils.kernels.node import cpu
from st_utils.kernels.node.form import Form
from st_utils.kernels.norm_node.definition import Fired
from st_utils.kernels.norm_node.form import Norm

# Least and most rows times columns. Below 16, a channel's memory is in pieces too short for the kernel to gain.
POSITIONS = 16, 2**62


def available() -> bool:
    """Whether the kernels are compiled, or can be now."""
    return _library("norm_node/cpu_channels_first") is not None and _library("norm_node/cpu_channels_last") is not None


def forward(x: Tensor, norm: Norm, decay: Tensor | None, form: Form, steps: int) -> Fired:
    """Spikes of `steps` steps in x's dtype, with the batch's mean and variance if the norm has none (else empty)."""
    spikes, of_batch = empty_steps(x, steps), norm.mean is None
    mean, var = (x.new_empty(x.shape[2] if of_batch else 0, dtype=torch.float32) for _ in range(2))
    used = norm._replace(mean=mean, var=var) if of_batch else norm  # the kernel writes them where they are the batch's
    _library_for(x).zoo_norm_forward(
        *(cpu.DTYPES[x.dtype], x.data_ptr(), spikes.data_ptr(), _shape(x, steps), of_batch),
        *_pointers(used),
        *(cpu.c_form(form, decay), threads(spikes)),
    )
    return Fired(spikes, mean, var)


def backward(
    grad: Tensor, x: Tensor, norm: Norm, decay: Tensor | None, form: Form, of_batch: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """dL/dx in x's dtype, dL/d weight and dL/d bias (float32 `[C]`), dL/d decay (float32; None where none is learned).

    With `of_batch`, the norm's mean and var are the batch's own and carry gradient. grad is dL/ds in x's layout.
    """
    grad_x, grad_weight, grad_bias = torch.empty_like(x), torch.empty_like(norm.mean), torch.empty_like(norm.mean)
    compiled, learn = _library_for(x), decay is not None
    grad_decay = compiled.zoo_norm_backward(
        *(cpu.DTYPES[x.dtype], grad.data_ptr(), x.data_ptr(), grad_x.data_ptr(), _shape(x, len(grad)), of_batch),
        *(*_pointers(norm), grad_weight.data_ptr(), grad_bias.data_ptr()),
        *(cpu.c_form(form, decay), cpu.surrogate(compiled, form), learn, threads(grad)),
    )
    return grad_x, grad_weight, grad_bias, torch.tensor(grad_decay, dtype=torch.float32) if learn else None


class CShape(ctypes.Structure):
    """`struct Shape` of both C++ files."""

    _fields_ = tuple((name, c_int64) for name in ("steps", "batch", "channels", "length", "once"))


def _shape(x: Tensor, steps: int) -> CShape:
    _, batch, channels = x.shape[:3]
    return CShape(steps=steps, batch=batch, channels=channels, length=x[0, 0, 0].numel(), once=len(x) != steps)


def _pointers(norm: Norm) -> tuple:
    """eps, then the addresses of weight, bias, mean and var."""
    return norm.eps, *(None if t is None else t.data_ptr() for t in (norm.weight, norm.bias, norm.mean, norm.var))


def _library_for(x: Tensor) -> ctypes.CDLL:
    return _library(f"norm_node/cpu_channels_{'first' if x.is_contiguous() else 'last'}")


def _library(name: str) -> ctypes.CDLL | None:
    compiled = library(name)
    if compiled and compiled.zoo_norm_backward.restype is not c_double:  # ctypes' default is int
        pointer, shape, form = c_void_p, POINTER(CShape), POINTER(cpu.CForm)
        common = [shape, c_int, c_double, *[pointer] * 4]
        compiled.zoo_norm_forward.argtypes = [c_int, *[pointer] * 2, *common, form, c_int]
        compiled.zoo_norm_forward.restype = None
        backward = [c_int, *[pointer] * 3, *common, *[pointer] * 2, form, pointer, c_int, c_int]
        compiled.zoo_norm_backward.argtypes = backward
        compiled.zoo_norm_backward.restype = c_double
    return compiled
