"""Runs steps of a network in one call (cpu.cpp): the C++ structures, and how they are filled.

    numbers = torch.arange(6.0)
    x = CSignal(images=1, height=1, width=3, channels=2, numbers=numbers.data_ptr())
    run((CStep * 1)(CStep(kind=KINDS.index("add"), inputs=(CSignal * 3)(x, x), out=x)))
    numbers.tolist()                          # [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]

What each kind computes is told in steps.h, what it reads and writes in signals.h. `st_utils/plan` makes the steps.
With `whole`, convolutions sum whole numbers of 16 bits in place of float32: a library of its own.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_float, c_int, c_int64, c_void_p

import torch
from torch import Tensor

from st_utils.kernels.common.compiler import library
from st_utils.kernels.node.cpu import CForm
from st_utils.kernels.spike_conv import op
from st_utils.kernels.spike_conv.op import CShape

# enum Kind of steps.h, in its order.
KINDS = (
    "convolve", "convolve_and_fire", "fire", "gather", "pool", "add", "to_numbers", "attend", "keep_tokens", "both",
    "sum_pixels",
)  # fmt: skip


class CSignal(ctypes.Structure):
    """`struct Signal` of signals.h."""

    _fields_ = (
        *((name, c_int64) for name in ("images", "height", "width", "channels", "planes")),
        *((name, c_void_p) for name in ("bits", "set", "numbers")),
    )


class CAttention(ctypes.Structure):
    """`struct Attention` of attention.h."""

    _fields_ = (
        *((name, c_int64) for name in ("groups", "tokens", "heads")),
        *((name, c_void_p) for name in ("group_pixels", "token_pixels")),
        *((name, c_float) for name in ("inner", "outer")),
    )


class CStep(ctypes.Structure):
    """`struct Step` of steps.h."""

    _fields_ = (
        ("kind", c_int64),
        ("inputs", CSignal * 3),
        ("out", CSignal),
        ("shape", CShape),
        *((name, c_void_p) for name in ("weight", "bias", "units")),
        ("form", CForm),
        *((name, c_int64) for name in ("steps", "repeated", "heads")),
        ("divisor", c_float),
        ("attention", CAttention),
    )


def available() -> bool:
    """Whether the steps are compiled, or can be now."""
    return _library() is not None


def run(steps: ctypes.Array[CStep], whole: bool = False, threads: int | None = None) -> None:
    """Run the steps, one after the other, with torch's number of threads. Their `set`s must be zero before."""
    _library(whole).zoo_run(steps, len(steps), threads or torch.get_num_threads())


def packed(weight: Tensor, shape: CShape, whole: bool = False) -> Tensor:
    """A convolution's weight in the order in which a step sums it, float32 or int16; it begins at a cache line."""
    return op.packed(weight, shape, _library(whole), torch.int16 if whole else torch.float32)


def _library(whole: bool = False) -> ctypes.CDLL | None:
    compiled = library("plan/cpu", *(["-DZOO_INT16"] if whole else []))
    if compiled and compiled.zoo_run.argtypes is None:
        pointer, shape = c_void_p, POINTER(CShape)
        compiled.zoo_run.argtypes, compiled.zoo_run.restype = [POINTER(CStep), c_int64, c_int], None
        compiled.zoo_packed_size.argtypes, compiled.zoo_packed_size.restype = [shape], c_int64
        compiled.zoo_pack.argtypes, compiled.zoo_pack.restype = [pointer, POINTER(c_int64), pointer, shape, c_int], None
    return compiled
