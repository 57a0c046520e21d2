"""Read a dictionary of arrays from an .npy file without running the pickle in it.

    np.save("0709_01.npy", {"t": t, "x": x, "y": y, "p": p})    # as BrainCog stores N-Omniglot's recordings
    read_dictionary(Path("0709_01.npy").read_bytes())["t"]      # int64 [N]

Such a file is a pickle, which may call any function when it is loaded. Here a class that only keeps what it is given
stands in for each of numpy's; a pickle that names anything else is refused. Arrays are then made of the kept bytes.
"""

from __future__ import annotations

import io
import pickle
import re
from typing import Any

import numpy as np


class _Array:
    """Keeps the state of an array: (version, shape, dtype, Fortran order, bytes or a list of objects)."""

    def __init__(self, *_: Any):
        self.state: tuple = ()

    def __setstate__(self, state: tuple) -> None:
        self.state = state

    def value(self) -> np.ndarray:
        """The array of numbers that is kept. Raises ValueError where it is none."""
        _, shape, kind, fortran, data = self.state
        dtype = f"{kind.order}{kind.code}" if isinstance(kind, _Type) else ""
        if not re.fullmatch(r"[<>|][biuf]\d", dtype) or not isinstance(data, bytes):
            raise ValueError("a pickle with an array that is no plain array of numbers")
        return np.frombuffer(data, np.dtype(dtype)).reshape(shape, order="F" if fortran else "C")


class _Type:
    """Keeps a dtype's code, such as i8, and its byte order."""

    def __init__(self, code: str, *_: Any):
        self.code, self.order = str(code), "|"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]


class _Inert(pickle.Unpickler):
    """Builds `_Array` and `_Type` in place of numpy's classes. Raises UnpicklingError for any other name."""

    NAMES = {  # noqa: RUF012
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Type,
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
    }

    def find_class(self, module: str, name: str) -> type:
        """The stand-in for a class of numpy."""
        if (module, name) not in self.NAMES:
            raise pickle.UnpicklingError(f"a pickle that names {module}.{name}, not only arrays")
        return self.NAMES[module, name]


def read_dictionary(data: bytes) -> dict[str, np.ndarray] | None:
    """The arrays in an .npy file's dictionary by name; None for a file that has a plain array.

    Raises ValueError, saying what the file is, where it is cut off, has another object, or names another class.
    """
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    _, _, dtype = read_header(file)
    if not dtype.hasobject:
        return None
    try:
        outer = _Inert(file).load()
        (content,) = outer.state[4]
        return {str(name): array.value() for name, array in content.items()}
    except (EOFError, OverflowError, AttributeError, IndexError, TypeError, KeyError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"no dictionary of arrays ({reason})") from None
