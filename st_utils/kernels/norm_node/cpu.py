"""Batch norm and integrate-and-fire neuron as one on the CPU: norm_node.cpp, a channel at a time in the cache.

x is the convolution's output, contiguous [T, B, C, ...], float32 or half precision; the norm's tensors and the state
are float32. Forward reads x once and writes spikes; backward reads x and the spikes' gradient once and writes x's.
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
from st_utils.kernels.norm_node.form import Norm

POSITIONS = 16, 2**62  # rows times columns: below, a channel's memory is too scattered for it to pay


def available() -> bool:
    """Whether the kernels are compiled, or can be now."""
    return _library("norm_node/cpu_channels_first") is not None and _library("norm_node/cpu_channels_last") is not None


def forward(x: Tensor, norm: Norm, decay: Tensor | None, form: Form, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes of `steps` steps in x's dtype, with the batch's mean and variance if the norm has none (else empty)."""
    spikes, batch = empty_steps(x, steps), norm.mean is None
    mean, var = (x.new_empty(x.shape[2] if batch else 0, dtype=torch.float32) for _ in range(2))
    used = norm._replace(mean=mean, var=var) if batch else norm
    _library_for(x).zoo_norm_forward(
        *(cpu.DTYPES[x.dtype], x.data_ptr(), spikes.data_ptr(), _shape(x, steps), batch),
        *_pointers(used),
        *(cpu.c_form(form, decay), threads(spikes)),
    )
    return spikes, mean, var


def backward(
    grad: Tensor, x: Tensor, norm: Norm, batch: bool, decay: Tensor | None, form: Form
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """dL/dx in x's dtype, dL/d weight and dL/d bias (float32 [C]), dL/d decay (float32; None where none is learned).

    `batch`: the norm's mean and var are the batch's own and carry gradient. `grad` has x's order of axes in memory.
    """
    grad_x, grad_weight, grad_bias = torch.empty_like(x), torch.empty_like(norm.mean), torch.empty_like(norm.mean)
    found, learn = _library_for(x), decay is not None
    grad_decay = found.zoo_norm_backward(
        *(cpu.DTYPES[x.dtype], grad.data_ptr(), x.data_ptr(), grad_x.data_ptr(), _shape(x, len(grad)), batch),
        *(*_pointers(norm), grad_weight.data_ptr(), grad_bias.data_ptr()),
        *(cpu.c_form(form, decay), cpu.surrogate(found, form), learn, threads(grad)),
    )
    return grad_x, grad_weight, grad_bias, torch.tensor(grad_decay, dtype=torch.float32) if learn else None


class CShape(ctypes.Structure):
    """`struct Shape` of norm_node.cpp and norm_node_last.cpp."""

    _fields_ = tuple((name, c_int64) for name in ("steps", "batch", "channels", "length", "once"))


def _shape(x: Tensor, steps: int) -> CShape:
    return CShape(steps, *x.shape[1:3], x[0, 0, 0].numel(), len(x) != steps)


def _pointers(norm: Norm) -> tuple:
    """eps, then the addresses of weight, bias, mean and var."""
    return norm.eps, *(None if t is None else t.data_ptr() for t in norm[:4])


def _library_for(x: Tensor) -> ctypes.CDLL:
    return _library(f"norm_node/cpu_channels_{'first' if x.is_contiguous() else 'last'}")


def _library(name: str) -> ctypes.CDLL | None:
    found = library(name)
    if found and found.zoo_norm_backward.restype is not c_double:
        pointer, shape, form = c_void_p, POINTER(CShape), POINTER(cpu.CForm)
        common = [shape, c_int, c_double, *[pointer] * 4]
        found.zoo_norm_forward.argtypes = [c_int, *[pointer] * 2, *common, form, c_int]
        found.zoo_norm_forward.restype = None
        backward = [c_int, *[pointer] * 3, *common, *[pointer] * 2, form, pointer, c_int, c_int]
        found.zoo_norm_backward.argtypes = backward
        found.zoo_norm_backward.restype = c_double
    return found
