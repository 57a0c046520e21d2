"""Packs spikes into bits and small counts into bytes, and unpacks them bit for bit.

    packed = pack((torch.rand(2048) < 0.2).float())               # 2048 floats in 256 bytes
    unpack(packed).shape                                          # torch.Size([2048])

Definition: unpack(pack(x)) is x, or pack(x) is None. Spikes are 0 and 1 (or 0 and a scale): a bit each. Sums of spikes,
integer firing and its quarters are k 2^-e with k from 0 to 255: a byte each. Indices, int64 in torch, go into the
narrowest integers that hold them. Anything else is not packed: packing compares every number with what unpacking will
give. On a CPU `cpu.cpp` does it in one pass over memory; on other devices, and without a compiler, torch.
"""

from __future__ import annotations

import ctypes
import math
from ctypes import c_double, c_int, c_int64, c_void_p
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from st_utils.kernels.common.compiler import library
from st_utils.kernels.common.threads import threads

LANES = 64  # bit b of byte j of a block is its number LANES b + j
BLOCK = 8 * LANES
SAMPLES = (32, 1024)  # numbers that are read before all are: 32 rule out most tensors that are no spikes
PLACES = torch.rand(SAMPLES[-1], dtype=torch.float64, generator=torch.Generator().manual_seed(0))  # times length: where
FINEST = 256  # units are 1, 1 / 2, 1 / 4, ... 1 / FINEST
WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Packed:
    """`count` numbers k * unit, whose k are in `data`."""

    data: Tensor
    width: Literal[0, 1, 8]  # bits per k; 0 is one integer of data's dtype per k
    unit: float
    dtype: torch.dtype  # of the numbers
    count: int


class Plan(NamedTuple):
    """A way of packing: bits per number, and what k is counted in."""

    width: Literal[1, 8]
    unit: float


def pack(x: Tensor) -> Packed | None:
    """x `[n]`, contiguous, packed; None where unpacking would not give x back bit for bit."""
    if x.dtype == torch.int64:
        return _narrow(x)
    if x.dtype not in FLOATS and x.dtype != torch.bool:
        return None
    if not _plans(x, SAMPLES[0]):
        return None
    for plan in _plans(x, SAMPLES[1]):
        data = _pack_bits(x, plan.unit) if plan.width == 1 else _pack_bytes(x, plan.unit)
        if data is not None:
            return Packed(data, plan.width, plan.unit, x.dtype, count=len(x))
    return None


def unpack(packed: Packed, start: int = 0, stop: int | None = None) -> Tensor:
    """The numbers start ... stop - 1, `[stop - start]`."""
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
            return Packed(x.to(dtype), width=0, unit=1.0, dtype=x.dtype, count=len(x))
    return None


def _plans(x: Tensor, sample: int) -> list[Plan]:
    """The ways of packing that a sample of x allows, the smallest first."""
    if x.dtype == torch.bool:
        return [Plan(width=1, unit=1.0)]
    values = set(x[(PLACES[:sample] * len(x)).long().to(x.device)].tolist()) - {0.0}
    if len(values) > 255 or not all(map(math.isfinite, values)):
        return []
    plans = [Plan(width=1, unit=max(values, default=1.0))] if len(values) <= 1 else []
    finest = max((value.as_integer_ratio()[1] for value in values), default=1)
    if finest <= FINEST and all(0 <= value * finest <= 255 for value in values):
        plans.append(Plan(width=8, unit=1 / finest))
    return plans


def _pack_bits(x: Tensor, unit: float) -> Tensor | None:
    data = x.new_empty(-(-len(x) // BLOCK) * LANES, dtype=torch.uint8)
    one = torch.tensor(unit, dtype=x.dtype)
    if compiled := _library(x):
        exact = compiled.zoo_pack_bits(x.itemsize, x.data_ptr(), one.data_ptr(), data.data_ptr(), len(x), threads(x))
        return data if exact else None
    words = x.view(WORDS[x.itemsize])
    bits = words == one.view(words.dtype).to(x.device)
    if not (bits | (words == 0)).all():
        return None
    bits = torch.nn.functional.pad(bits, (0, 8 * len(data) - len(x))).view(-1, 8, LANES)  # [n] -> [blocks, 8, LANES]
    torch.sum(bits << _shifts(x.device), 1, dtype=torch.uint8, out=data.view(-1, LANES))  # -> bytes [blocks, LANES]
    return data


def _unpack_bits(data: Tensor, count: int, packed: Packed) -> Tensor:
    one = torch.tensor(packed.unit, dtype=packed.dtype)
    if compiled := _library(data):
        x = data.new_empty(count, dtype=packed.dtype)
        compiled.zoo_unpack_bits(x.itemsize, data.data_ptr(), one.data_ptr(), x.data_ptr(), count, threads(x))
        return x
    bits = (data.view(-1, 1, LANES) >> _shifts(data.device) & 1).flatten()[:count]  # [blocks, 8, LANES] -> [count]
    return torch.where(bits.bool(), one.to(data.device), torch.zeros_like(one, device=data.device))


def _pack_bytes(x: Tensor, unit: float) -> Tensor | None:
    wide = x.float() if x.itemsize == 2 else x
    if compiled := _library(x):
        data = x.new_empty(len(x), dtype=torch.uint8)
        exact = compiled.zoo_pack_bytes(wide.itemsize, wide.data_ptr(), unit, data.data_ptr(), len(x), threads(x))
        return data if exact else None
    data = (wide / unit).nan_to_num().clamp(0, 255).to(torch.uint8)
    words = WORDS[wide.itemsize]
    same = torch.equal((data.to(wide.dtype) * unit).view(words), wide.view(words))
    return data if same else None


def _unpack_bytes(data: Tensor, packed: Packed) -> Tensor:
    wide = torch.float64 if packed.dtype == torch.float64 else torch.float32
    if compiled := _library(data):
        x = data.new_empty(len(data), dtype=wide)
        compiled.zoo_unpack_bytes(x.itemsize, data.data_ptr(), packed.unit, x.data_ptr(), len(x), threads(x))
    else:
        x = data.to(wide).mul_(packed.unit)
    return x.to(packed.dtype)


def _shifts(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device).view(8, 1)


def _library(x: Tensor) -> ctypes.CDLL | None:
    compiled = library("spike_bits/cpu") if x.device.type == "cpu" else None
    if compiled and compiled.zoo_pack_bytes.argtypes is None:  # once per process
        compiled.zoo_pack_bits.argtypes = [c_int, c_void_p, c_void_p, c_void_p, c_int64, c_int]
        compiled.zoo_unpack_bits.argtypes = compiled.zoo_pack_bits.argtypes
        compiled.zoo_pack_bytes.argtypes = [c_int, c_void_p, c_double, c_void_p, c_int64, c_int]
        compiled.zoo_unpack_bytes.argtypes = [c_int, c_void_p, c_double, c_void_p, c_int64, c_int]
        compiled.zoo_unpack_bits.restype = compiled.zoo_unpack_bytes.restype = None
    return compiled
