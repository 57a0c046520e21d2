"""Numbers that are few multiples of a unit, in a bit or a byte each, and back to the same bits.

Spikes are 0 and 1 (or 0 and a scale): a bit. Sums of spikes, integer firing and its quarters are k * 2^-e with k
from 0 to 255: a byte. Indices, int64 in torch, are kept in the narrowest integers that hold them. What is none of
these is not packed: packing compares every number with what unpacking would give. On a CPU pack.cpp does it, one
pass over memory; elsewhere, and without a compiler, torch.
"""

from __future__ import annotations

import ctypes
import math
from ctypes import c_double, c_int, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from st_utils.kernels.common.compiler import library
from st_utils.kernels.common.threads import threads

LANES = 64  # bit b of byte j of a block is number LANES b + j of it
BLOCK = 8 * LANES
SAMPLES = (32, 1024)  # numbers that are looked at before all of them are; few tell most that are no spikes
PLACES = torch.rand(SAMPLES[-1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))  # parts of the way
FINEST = 256  # the smallest unit is 1 / FINEST
WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Packed:
    """`count` numbers k * unit of `dtype`, their k in `data`: a bit or a byte each, or narrow integers (width 0)."""

    data: Tensor
    width: int
    unit: float
    dtype: torch.dtype
    count: int


def pack(x: Tensor) -> Packed | None:
    """The contiguous `[n]` packed; None where that would not give x back bit for bit."""
    if x.dtype == torch.int64:
        return _narrow(x)
    if x.dtype not in FLOATS and x.dtype != torch.bool:
        return None
    if not _plans(x, SAMPLES[0]):
        return None
    for width, unit in _plans(x, SAMPLES[1]):
        data = _pack_bits(x, unit) if width == 1 else _pack_bytes(x, unit)
        if data is not None:
            return Packed(data, width, unit, x.dtype, len(x))
    return None


def unpack(packed: Packed, start: int = 0, stop: int | None = None) -> Tensor:
    """The numbers from `start` to before `stop`, `[stop - start]`."""
    stop = packed.count if stop is None else stop
    if packed.width == 0:
        return packed.data[start:stop].to(packed.dtype)
    if packed.width == 8:
        return _unpack_bytes(packed.data[start:stop], packed)
    first = start // BLOCK
    data = packed.data[first * LANES : -(-stop // BLOCK) * LANES]
    return _unpack_bits(data, stop - first * BLOCK, packed)[start - first * BLOCK :]


def _narrow(x: Tensor) -> Packed | None:
    low, high = torch.stack(torch.aminmax(x)).tolist()
    for dtype in (torch.uint8, torch.int16, torch.int32):
        if torch.iinfo(dtype).min <= low and high <= torch.iinfo(dtype).max:
            return Packed(x.to(dtype), 0, 1.0, x.dtype, len(x))
    return None


def _plans(x: Tensor, sample: int) -> list[tuple[int, float]]:
    """What packing may try, (bits a number, unit), judged by a sample."""
    if x.dtype == torch.bool:
        return [(1, 1.0)]
    values = set(x[(PLACES[:sample] * len(x)).long().to(x.device)].tolist()) - {0.0}
    if len(values) > 255 or not all(map(math.isfinite, values)):
        return []
    plans = [(1, max(values, default=1.0))] if len(values) <= 1 else []
    finest = max((value.as_integer_ratio()[1] for value in values), default=1)
    if finest <= FINEST and all(0 <= value * finest <= 255 for value in values):
        plans.append((8, 1 / finest))
    return plans


def _pack_bits(x: Tensor, unit: float) -> Tensor | None:
    data = x.new_empty(-(-len(x) // BLOCK) * LANES, dtype=torch.uint8)
    one = torch.tensor(unit, dtype=x.dtype)
    if found := _library(x):
        fine = found.zoo_pack_bits(x.itemsize, x.data_ptr(), one.data_ptr(), data.data_ptr(), len(x), threads(x))
        return data if fine else None
    words = x.view(WORDS[x.itemsize])
    bits = words == one.view(words.dtype).to(x.device)
    if not (bits | (words == 0)).all():
        return None
    bits = torch.nn.functional.pad(bits, (0, 8 * len(data) - len(x))).view(-1, 8, LANES)
    torch.sum(bits << _shifts(x.device), 1, dtype=torch.uint8, out=data.view(-1, LANES))
    return data


def _unpack_bits(data: Tensor, count: int, packed: Packed) -> Tensor:
    one = torch.tensor(packed.unit, dtype=packed.dtype)
    if found := _library(data):
        x = data.new_empty(count, dtype=packed.dtype)
        found.zoo_unpack_bits(x.itemsize, data.data_ptr(), one.data_ptr(), x.data_ptr(), count, threads(x))
        return x
    bits = (data.view(-1, 1, LANES) >> _shifts(data.device) & 1).flatten()[:count]
    return torch.where(bits.bool(), one.to(data.device), torch.zeros_like(one, device=data.device))


def _pack_bytes(x: Tensor, unit: float) -> Tensor | None:
    wide = x.float() if x.itemsize == 2 else x
    if found := _library(x):
        data = x.new_empty(len(x), dtype=torch.uint8)
        fine = found.zoo_pack_bytes(wide.itemsize, wide.data_ptr(), unit, data.data_ptr(), len(x), threads(x))
        return data if fine else None
    data = (wide / unit).nan_to_num().clamp(0, 255).to(torch.uint8)
    words = WORDS[wide.itemsize]
    same = torch.equal((data.to(wide.dtype) * unit).view(words), wide.view(words))
    return data if same else None


def _unpack_bytes(data: Tensor, packed: Packed) -> Tensor:
    wide = torch.float64 if packed.dtype == torch.float64 else torch.float32
    if found := _library(data):
        x = data.new_empty(len(data), dtype=wide)
        found.zoo_unpack_bytes(x.itemsize, data.data_ptr(), packed.unit, x.data_ptr(), len(x), threads(x))
    else:
        x = data.to(wide).mul_(packed.unit)
    return x.to(packed.dtype)


def _shifts(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device).view(8, 1)


def _library(x: Tensor) -> ctypes.CDLL | None:
    found = library("spike_bits/cpu") if x.device.type == "cpu" else None
    if found and found.zoo_pack_bytes.argtypes is None:
        found.zoo_pack_bits.argtypes = [c_int, c_void_p, c_void_p, c_void_p, c_int64, c_int]
        found.zoo_unpack_bits.argtypes = found.zoo_pack_bits.argtypes
        found.zoo_pack_bytes.argtypes = [c_int, c_void_p, c_double, c_void_p, c_int64, c_int]
        found.zoo_unpack_bytes.argtypes = [c_int, c_void_p, c_double, c_void_p, c_int64, c_int]
        found.zoo_unpack_bits.restype = found.zoo_unpack_bytes.restype = None
    return found
