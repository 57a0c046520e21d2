"""The grid of a loss landscape, what is measured at its points, and the HDF5 file that keeps it.

Example:
    from st_utils.analysis.surface import Axis, Surface

    surface = Surface.empty({"weights": "98a7"}, Axis.parse("-1:1:21"), Axis.parse("-1:1:11"))
    surface.shape  # -> (11, 21)

    float(surface.x[10]), str(Axis(-1, 1, 21))  # -> (0.0, '-1:1:21')

The file is a plain HDF5 file: h5py.File("landscape.h5")["loss"][:] are the losses `[Y, X]`.
"""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from st_utils.files import write_atomic

_log = logging.getLogger("zoo")
MOST = 10_001  # points of an axis


class Axis(NamedTuple):
    """`count` coordinates at even distances from `low` to `high`."""

    low: float
    high: float
    count: int

    @classmethod
    def parse(cls, text: str) -> Axis:
        """The axis that LOW:HIGH:COUNT says. Raises ValueError with what is expected."""
        try:
            low, high, count = text.split(":")
            axis = cls(float(low), float(high), int(count))
        except ValueError:
            axis = cls(math.nan, math.nan, 0)
        if not (math.isfinite(axis.high - axis.low) and axis.low < axis.high and 2 <= axis.count <= MOST):
            raise ValueError(f"takes LOW:HIGH:COUNT, such as -1:1:51, with LOW < HIGH and COUNT from 2 to {MOST}")
        return axis

    def coordinates(self) -> NDArray[np.float64]:
        """The coordinates `[count]`; those of -LOW = HIGH are symmetric to the last bit, 0 is exactly 0."""
        steps, last = np.arange(self.count), self.count - 1
        return (self.low * (last - steps) + self.high * steps) / last

    def __str__(self) -> str:
        return f"{self.low:.12g}:{self.high:.12g}:{self.count}"


class Point(NamedTuple):
    """What is measured at a point: mean loss, accuracy in percent, spikes per neuron per step (nan without neurons)."""

    loss: float
    top1: float
    firing_rate: float


@dataclass
class Surface:
    """Loss, accuracy and firing rate on a grid.

    Attributes:
        identity: what was measured, in JSON's types; a file with another identity is another surface.
        x, y: coordinates along the first direction `[X]` and along the second `[Y]`; y is None for a curve.
        values: `[Y, X]` for each of `Point`'s names, `[X]` for a curve; nan where not measured.
        measured: which points are measured, of the same shape.
        centre: measured at the trained weights; None before.
    """

    identity: dict[str, Any]
    x: NDArray[np.float64]
    y: NDArray[np.float64] | None
    values: dict[str, NDArray[np.float64]]
    measured: NDArray[np.bool_]
    centre: Point | None = None

    @classmethod
    def empty(cls, identity: dict[str, Any], x: Axis, y: Axis | None = None) -> Surface:
        """A surface of which nothing is measured yet."""
        shape = (x.count,) if y is None else (y.count, x.count)
        values = {name: np.full(shape, math.nan) for name in Point._fields}
        return cls(identity, x.coordinates(), y and y.coordinates(), values, np.zeros(shape, bool))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.measured.shape

    def unmeasured(self) -> list[tuple[int, ...]]:
        """The indices of the points that are left, row by row."""
        return [tuple(map(int, index)) for index in np.argwhere(~self.measured)]

    def steps(self, index: tuple[int, ...]) -> tuple[float, ...]:
        """How far a point lies along each direction: (x,) or (x, y)."""
        *row, column = index
        return (float(self.x[column]), *(float(self.y[number]) for number in row))

    def put(self, index: tuple[int, ...], point: Point) -> None:
        """Note what was measured at a point."""
        for name, value in point._asdict().items():
            self.values[name][index] = value
        self.measured[index] = True


def write_surface(path: Path, surface: Surface) -> None:
    """Write the HDF5 file, whole or not at all. Raises UserError where the system refuses."""
    import h5py  # slow to import

    buffer = io.BytesIO()  # HDF5 itself crashes when the disk is full
    with h5py.File(buffer, "w") as file:
        file.attrs["identity"] = json.dumps(surface.identity, sort_keys=True)
        if surface.centre:
            file.attrs.update({f"centre_{name}": value for name, value in surface.centre._asdict().items()})
        for name, values in _arrays(surface):
            file.create_dataset(name, data=values, fletcher32=True)  # a checksum: damage is noticed
    write_atomic(path, [buffer.getvalue()])


def read_surface(path: Path, wanted: Surface) -> Surface | None:
    """The surface that a file keeps; None where the file is missing, damaged, or of another surface than `wanted`."""
    import h5py

    if not path.exists():
        return None
    try:
        with h5py.File(path) as file:
            identity = json.loads(file.attrs["identity"])
            found = {name: file[name][:] for name, _ in _arrays(wanted)}
            centre = Point(*(float(file.attrs[f"centre_{name}"]) for name in Point._fields))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        _log.warning("%s is damaged (%s): it is measured anew", path, " ".join(str(error).split())[:200])
        return None
    same_grid = all(
        np.array_equal(found[name], values) if name in ("x", "y") else found[name].shape == values.shape
        for name, values in _arrays(wanted)
    )
    if identity != wanted.identity or not same_grid:
        _log.warning("%s is of other weights, data or settings: it is measured anew", path)
        return None
    values = {name: found[name] for name in Point._fields}
    return Surface(identity, wanted.x, wanted.y, values, found["measured"], centre)


def _arrays(surface: Surface) -> Iterator[tuple[str, NDArray]]:
    yield "x", surface.x
    if surface.y is not None:
        yield "y", surface.y
    yield from surface.values.items()
    yield "measured", surface.measured
