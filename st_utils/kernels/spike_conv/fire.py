"""A convolution of spikes and the neuron after it as one kernel, in inference on the CPU.

    form = Form(charge="decay", threshold=1.0, v_reset=0.0, detach="reset", surrogate="sigmoid", alpha=4.0, decay=0.5)
    x = torch.ones(4, 2, 64, 8, 8).movedim(2, -1).contiguous().movedim(-1, 2)      # [T, B, C, H, W], channels last
    convolve_and_fire(x, torch.randn(128, 64, 1, 1), None, Geometry(), None, form).shape      # [4, 2, 128, 8, 8]

Definitions: st_utils/kernels/spike_conv/definition.py, then st_utils/kernels/node/definition.py.

The currents between the two, four bytes per neuron and step, are never in memory. Spikes are those of `op.convolve` and
then `node/cpu.py`, bit for bit. Nothing is saved for a gradient, and no operator is registered: who trains, compiles or
counts gets the two operators one after the other.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_int, c_int64, c_void_p

import torch
from torch import Tensor

from st_utils.kernels.common.compiler import library
from st_utils.kernels.node import cpu
from st_utils.kernels.node.form import Form
from st_utils.kernels.spike_conv import op
from st_utils.kernels.spike_conv.definition import Geometry


def convolve_and_fire(
    x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry, decay: Tensor | None, form: Form
) -> Tensor | None:
    """Spikes `[T, B, C', H', W']`, channels last, of the neuron over the convolution of x `[T, B, C, H, W]`.

    None where x is neither spikes nor counts of them, or there is no compiler. x is float32 with its channels last;
    `decay` is the learned 1 / tau, None takes `form.decay`.
    """
    compiled = _library()
    if compiled is None:
        return None
    images = x.flatten(0, 1)
    spikes, shape = op.empty_out(images, weight, geometry), op.shape_of(images, weight, geometry)
    ready, biases = op.packed(weight, shape), None if bias is None else bias.contiguous()
    found = compiled.zoo_fire(
        *(images.data_ptr(), ready.data_ptr(), None if biases is None else biases.data_ptr(), spikes.data_ptr()),
        *(shape, len(x), cpu.c_form(form, decay), torch.get_num_threads()),
    )
    return spikes.unflatten(0, x.shape[:2]) if found else None


def _library() -> ctypes.CDLL | None:
    compiled = library("spike_conv/cpu_fire")
    if compiled and compiled.zoo_fire.argtypes is None:
        pointer, shape, form = c_void_p, POINTER(op.CShape), POINTER(cpu.CForm)
        compiled.zoo_fire.argtypes = [*[pointer] * 4, shape, c_int64, form, c_int]
    return compiled
