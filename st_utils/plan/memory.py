"""Gives the buffers of a network's steps their memory: what no later step reads is written over.

memory = Memory(steps)
memory.signal(buffer), memory.counters        # a CSignal with its addresses; the counters of all bits
"""

from __future__ import annotations

from collections import defaultdict
from math import prod

import torch
from torch import Tensor

from st_utils.kernels.plan.library import CSignal
from st_utils.plan.steps import Keep, Kernel, Show, Steps
from st_utils.plan.views import Buffer

WORD = 64  # channels that share a word of bits
LARGEST_CHUNK = 64  # channels whose set bits are counted together, at least


class Memory:
    """The memory of all buffers, allocated once.

    A buffer takes the place of one of the same sizes that is not read any more: what fills its strings up stays zero.
    Numbers that torch's operators read as views keep their place.
    """

    def __init__(self, steps: Steps) -> None:
        last = _last_readers(steps)
        self._places: dict[Buffer, Tensor] = {}
        free: dict[tuple, list[Tensor]] = defaultdict(list)
        for number, step in enumerate(steps.order):
            buffer = step.out if isinstance(step, Kernel) else step.buffer if isinstance(step, Keep) else None
            if buffer is None:
                continue
            same = free[_size(buffer)]
            self._places[buffer] = same.pop() if same else _allocate(buffer)
            for other in [other for other, at in last.items() if at == number and other in self._places]:
                free[_size(other)].append(self._places[other])
                del last[other]
        counts = {b: b.planes * b.images * -(-b.channels // LARGEST_CHUNK) for b in self._places if b.planes}
        self.counters = torch.zeros(max(1, sum(counts.values())), dtype=torch.int32)
        self._counters, at = {}, 0
        for buffer, n in counts.items():
            self._counters[buffer] = self.counters[at:]
            at += n

    def numbers(self, buffer: Buffer) -> Tensor:
        """A buffer's float32 numbers, flat."""
        return self._places[buffer]

    def signal(self, buffer: Buffer) -> CSignal:
        """The buffer as the kernels see it."""
        place = self._places[buffer].data_ptr()
        images, height, width, channels = buffer.sizes
        bits, numbers = (place, None) if buffer.planes else (None, place)
        counters = self._counters[buffer].data_ptr() if buffer.planes else None
        return CSignal(images, height, width, channels, buffer.planes, bits, counters, numbers)

    @property
    def addresses(self) -> set[int]:
        """Where the storages of all buffers begin."""
        return {place.untyped_storage().data_ptr() for place in self._places.values()}

    @property
    def size(self) -> int:
        """Bytes of all buffers."""
        return sum(t.numel() * t.element_size() for t in {t.data_ptr(): t for t in self._places.values()}.values())


def _last_readers(steps: Steps) -> dict[Buffer, int]:
    """The number of the last step that reads a buffer; without those that torch sees."""
    last, shown = {}, set()
    for number, step in enumerate(steps.order):
        if isinstance(step, Kernel):
            last[step.out] = number
            last.update(dict.fromkeys(step.inputs, number))
        elif isinstance(step, Show):
            shown.add(step.view.buffer)
        elif isinstance(step, Keep):
            last[step.buffer] = number
    return {buffer: at for buffer, at in last.items() if buffer not in shown}


def _size(buffer: Buffer) -> tuple:
    return *buffer.sizes, buffer.planes


def _allocate(buffer: Buffer) -> Tensor:
    """Zeros that begin at a cache line."""
    if buffer.planes:
        n = buffer.planes * prod(buffer.sizes[:3]) * -(-buffer.channels // WORD) * 4
        memory = torch.zeros(n + 32, dtype=torch.int16)
        return memory[-memory.data_ptr() // 2 % 32 :][:n]
    n = prod(buffer.sizes)
    memory = torch.zeros(n + 16, dtype=torch.float32)
    return memory[-memory.data_ptr() // 4 % 16 :][:n]
