"""Read the FlatBuffers of AEDAT 4 files: a header's scalar fields, and a packet's events.

compression = flat_field(header, 0, "<i", 0)    # field 0 of the header, 0 where it is left out
event_records(packet)["x"]                      # int16 [N]
"""

from __future__ import annotations

import struct

import numpy as np


def flat_field(buffer: bytes, number: int, form: str, default: int) -> int:
    """A scalar field of a FlatBuffer's root table; `default` where it is left out."""
    place = _flat_place(buffer, number)
    return struct.unpack_from(form, buffer, place)[0] if place else default


def _flat_place(buffer: bytes, number: int) -> int:
    """The byte at which a field of the root table begins; 0 where the field is left out."""
    (root,) = struct.unpack_from("<I", buffer)
    vtable = root - struct.unpack_from("<i", buffer, root)[0]
    (length,) = struct.unpack_from("<H", buffer, vtable)
    slot = 4 + 2 * number
    offset = struct.unpack_from("<H", buffer, vtable + slot)[0] if slot < length else 0
    return root + offset if offset else 0


def event_records(packet: bytes) -> np.ndarray:
    """The events of a decompressed packet, records of t, x, y, p."""
    dtype = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1"), ("pad", "V3")])
    place = _flat_place(packet, 0)
    if not place:
        return np.empty(0, dtype)
    vector = place + struct.unpack_from("<I", packet, place)[0]
    (count,) = struct.unpack_from("<I", packet, vector)
    return np.frombuffer(packet, dtype, count, vector + 4)
