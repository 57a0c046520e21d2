"""Where the numbers of a tensor lie in a buffer: views, copies and reshapes of it without moving anything.

    buffer = Buffer(images=8, height=4, width=4, channels=6)              # [images, height, width, channels]
    x = View.of(buffer, (8, 6, 4, 4))                                     # [N, C, H, W]
    x.reshaped((4, 2, 6, 4, 4)).permuted((1, 0, 3, 4, 2)).dims[0]         # ((2, 96),)

Each axis of a view is a list of factors (size, stride): an axis that two were flattened into may have two. A copy that
torch makes, because a tensor of one stride per axis can't show it, is none here: attention's tokens, for instance, are
those of the pixels of several time steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod

import torch

Axis = tuple[tuple[int, int], ...]  # factors (size, stride), the slowest first


@dataclass(eq=False)
class Buffer:
    """What a step writes: float32 numbers, or spikes and counts of them as bits.

    Attributes:
        most: the greatest count; None for numbers.
    """

    images: int
    height: int
    width: int
    channels: int
    most: int | None = None
    step: object = field(default=None, repr=False)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        return self.images, self.height, self.width, self.channels

    @property
    def planes(self) -> int:
        """Bits of a count; 0 for numbers."""
        return 0 if self.most is None else max(1, self.most.bit_length())


@dataclass(frozen=True)
class View:
    """A tensor as axes over a buffer's elements."""

    buffer: Buffer
    dims: tuple[Axis, ...]
    offset: int = 0

    @classmethod
    def of(cls, buffer: Buffer, shape: Sequence[int]) -> View | None:
        """The buffer as `[..., C, H, W]`, its images as the axes before the channels; None where it has other sizes."""
        _, height, width, channels = buffer.sizes
        pixels = width * channels
        images = _split(((buffer.images, height * pixels),), shape[:-3])
        if images is None or tuple(shape[-3:]) != (channels, height, width):
            return None
        return cls(
            buffer,
            tuple(_clean(axis) for axis in (*images, ((channels, 1),), ((height, pixels),), ((width, channels),))),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(prod(size for size, _ in axis) for axis in self.dims)

    @property
    def whole(self) -> bool:
        """Whether it has each element of the buffer once."""
        factors = sorted((stride, size) for axis in self.dims for size, stride in axis)
        at = 1
        for stride, size in factors:
            if stride != at:
                return False
            at *= size
        return at == prod(self.buffer.sizes) and not self.offset

    def over(self, buffer: Buffer) -> View:
        """The same axes over another buffer of these sizes."""
        return replace(self, buffer=buffer)

    def permuted(self, order: Sequence[int]) -> View:
        return replace(self, dims=tuple(self.dims[axis] for axis in order))

    def reshaped(self, shape: Sequence[int]) -> View | None:
        """None where an axis of the result would take a part of a factor that can't be split off."""
        axes = _split([factor for axis in self.dims for factor in axis], shape)
        return axes and replace(self, dims=tuple(map(_clean, axes)))

    def expanded(self, shape: Sequence[int]) -> View:
        dims = ((),) * (len(shape) - len(self.dims)) + self.dims
        mine = (1,) * (len(shape) - len(self.dims)) + self.shape
        return replace(
            self, dims=tuple(axis if n == size else ((n, 0),) for axis, n, size in zip(dims, shape, mine, strict=True))
        )

    def indexed(self, index: object) -> View | None:
        """`x[index]` of numbers, slices, `...` and None; None where it has something else."""
        index = index if isinstance(index, tuple) else (index,)
        if any(i is Ellipsis for i in index):
            at = next(place for place, i in enumerate(index) if i is Ellipsis)
            named = sum(i is not None for i in index) - 1
            index = (*index[:at], *[slice(None)] * (len(self.dims) - named), *index[at + 1 :])
        dims, offset, axes = [], self.offset, iter(self.dims)
        for i in index:
            if i is None:
                dims.append(())
                continue
            axis = next(axes)
            if len(axis) > 1 or not isinstance(i, int | slice):
                return None
            size, stride = axis[0] if axis else (1, 0)
            taken = range(size)[i]
            if isinstance(taken, int):
                offset += taken * stride
            else:
                offset += (taken.start if len(taken) else 0) * stride
                dims.append(_clean(((len(taken), taken.step * stride),)))
        return replace(self, dims=(*dims, *axes), offset=offset)

    def tensor(self, elements: torch.Tensor) -> torch.Tensor:
        """The view of a flat tensor of the buffer's elements; a copy where axes have several factors."""
        factors = [factor for axis in self.dims for factor in axis]
        sizes, strides = ([factor[i] for factor in factors] for i in (0, 1))
        return elements.as_strided(sizes, strides, self.offset).reshape(self.shape)


def pixels(factors: Sequence[tuple[int, int]], channels: int) -> torch.Tensor:
    """The pixels of a buffer that factors run through, in their order, int64."""
    found = torch.zeros(1, dtype=torch.int64)
    for size, stride in factors:
        found = (found[:, None] + torch.arange(size) * (stride // channels)).flatten()
    return found


def _clean(axis: Sequence[tuple[int, int]]) -> Axis:
    """Without factors of size 1, and factors that lie behind one another as one."""
    found: list[tuple[int, int]] = []
    for size, stride in axis:
        if size == 1:
            continue
        if found and found[-1][1] == size * stride:
            found[-1] = (found[-1][0] * size, stride)
        else:
            found.append((size, stride))
    return tuple(found)


def _split(factors: Sequence[tuple[int, int]], shape: Sequence[int]) -> list[Axis] | None:
    """The factors, shared out over axes of these sizes."""
    left, axes = list(reversed(factors)), []
    for size in shape:
        axis = []
        while size > 1:
            if not left:
                return None
            n, stride = left.pop()
            if size % n == 0:
                size //= n
            elif n % size == 0:
                left.append((n // size, stride))
                n, stride, size = size, stride * (n // size), 1
            else:
                return None
            axis.append((n, stride))
        axes.append(tuple(axis))
    return axes if all(n == 1 for n, _ in left) else None
