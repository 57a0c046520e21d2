"""Runs steps of a network in one call (cpu.cpp): the C++ structures, and how they are filled.

    numbers = torch.arange(6.0)
    x = CSignal(images=1, height=1, width=3, channels=2, numbers=numbers.data_ptr())
    run((CStep * 1)(CStep(kind=KINDS.index("add"), inputs=(CSignal * 3)(x, x), out=x)))
    numbers.tolist()                          # [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]

What each kind computes is told in steps.h, what it reads and writes in signals.h. `st_utils/inference` makes the steps.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_float, c_int, c_int64, c_void_p

import torch

from st_utils.kernels.common.compiler import library
from st_utils.kernels.node.cpu import CForm
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
        *((name, c_void_p) for name in ("weight", "bias")),
        ("form", CForm),
        *((name, c_int64) for name in ("steps", "repeated", "heads")),
        ("divisor", c_float),
        ("attention", CAttention),
    )


def available() -> bool:
    """Whether the steps are compiled, or can be now."""
    return _library() is not None


def run(steps: ctypes.Array[CStep]) -> None:
    """Run the steps, one after the other, with torch's number of threads. Their `set`s must be zero before."""
    _library().zoo_run(steps, len(steps), torch.get_num_threads())


def _library() -> ctypes.CDLL | None:
    compiled = library("plan/cpu")
    if compiled and compiled.zoo_run.argtypes is None:
        compiled.zoo_run.argtypes = [POINTER(CStep), c_int64, c_int]
        compiled.zoo_run.restype = None
    return compiled
