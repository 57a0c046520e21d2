"""Read event recordings in the file formats of the field's data sets.

    events = read_events(Path("NMNIST/Train/0/00002.bin"), sensor=(34, 34))
    events.x, events.y, events.t, events.p   # int64 [N] each, in order of time

A file that is missing, cut off, of another format or with events outside the sensor raises a UserError that names it.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from st_utils.data.checked_files import read_file
from st_utils.data.events.flat_buffers import event_records, flat_field
from st_utils.data.events.npy_dictionary import read_dictionary
from st_utils.errors import UserError

BIN_OVERFLOW = 240  # an event in this row says that 2^13 us more have passed (Orchard's format)
CUT_OFF = EOFError, zlib.error
COMPRESSIONS = ("none", "lz4", "lz4", "zstd", "zstd")  # AEDAT 4 gives the index


@dataclass(frozen=True)
class Events:
    """N events in order of time, int64 `[N]` each: column x, row y, time t in us (or in steps), polarity p, 0 or 1."""

    x: np.ndarray
    y: np.ndarray
    t: np.ndarray
    p: np.ndarray

    def __len__(self) -> int:
        return len(self.t)

    def __getitem__(self, chosen: np.ndarray | slice) -> Events:
        return Events(self.x[chosen], self.y[chosen], self.t[chosen], self.p[chosen])


class FormatError(Exception):
    """A fault in a file's bytes, in a few words; `read_events` adds the path."""


def sorted_events(x: np.ndarray, y: np.ndarray, t: np.ndarray, p: np.ndarray) -> Events:
    """Make `Events` of four columns of numbers, sorted by time; events of equal time keep their order."""
    if len({np.size(column) for column in (x, y, t, p)}) > 1:
        raise FormatError("a file whose columns x, y, t and p differ in length")
    events = Events(*(np.asarray(column).astype(np.int64).reshape(-1) for column in (x, y, t, p)))
    return events if np.all(np.diff(events.t) >= 0) else events[np.argsort(events.t, kind="stable")]


def _records(data: bytes, dtype: np.dtype | str, what: str) -> np.ndarray:
    """The bytes as an array of records. Raises FormatError, naming `what` they are, where the last one is cut off."""
    size = np.dtype(dtype).itemsize
    if len(data) % size:
        raise FormatError(f"cut off: {len(data)} bytes of {what} are no multiple of {size}")
    return np.frombuffer(data, dtype)


def parse_bin(data: bytes) -> Events:
    """Parse 40-bit events (.bin, .bs2: N-MNIST, N-Caltech101): x, y, polarity and 23 bits of microseconds."""
    raw = _records(data, "(5,)u1", "5-byte events").astype(np.int64)
    t = (raw[:, 2] & 127) << 16 | raw[:, 3] << 8 | raw[:, 4]
    overflow = raw[:, 1] == BIN_OVERFLOW
    events = raw[~overflow]
    t = (t + (np.cumsum(overflow) << 13))[~overflow]
    return sorted_events(events[:, 0], events[:, 1], t, events[:, 2] >> 7)


def parse_aedat(data: bytes) -> Events:
    """Parse AEDAT 2.0 of a DVS128, with jAER's raw addresses, and AEDAT 3.1 (DVS128 Gesture)."""
    version = re.match(rb"#!AER-DAT(\d)\.\d", data)
    if not version:
        raise FormatError("no AEDAT file: it does not start with #!AER-DAT")
    if version[1] == b"3":
        return _aedat3(data)
    if version[1] != b"2":
        raise FormatError(f"AEDAT {version[1].decode()}: known are 2.0, 3.1 and, as .aedat4, 4.0")
    start, chip = 0, None
    while data[start : start + 1] == b"#":
        end = data.find(b"\n", start) + 1 or len(data)
        chip = re.search(rb"AEChip: \S*?(\w+)\s*$", data[start:end]) or chip
        start = end
    if chip and chip[1] != b"DVS128":
        raise FormatError(f"a recording of the chip {chip[1].decode()}, not of a DVS128")
    raw = _records(data[start:], np.dtype([("address", ">u4"), ("t", ">u4")]), "8-byte events")
    address = raw["address"].astype(np.int64)
    return sorted_events(address >> 8 & 127, address >> 1 & 127, raw["t"], address & 1)


def _aedat3(data: bytes) -> Events:
    """Parse AEDAT 3: packets of a 28-byte header and the events; packets of type 1 have polarity events of 8 bytes."""
    mark = b"#!END-HEADER\r\n"
    if mark not in data:
        raise FormatError("cut off in its header")
    place, parts = data.index(mark) + len(mark), []
    while place < len(data):
        header = data[place : place + 28]
        if len(header) < 28:
            raise FormatError("cut off in a packet's header")
        kind, _, size, _, overflow, capacity = struct.unpack("<HHIIII", header[:20])
        packet = data[place + 28 : place + 28 + size * capacity]
        if len(packet) < size * capacity:
            raise FormatError("cut off in a packet")
        if kind == 1:
            raw = _records(packet, np.dtype([("data", "<u4"), ("t", "<u4")]), "8-byte events")
            parts.append((raw["data"].astype(np.int64), raw["t"].astype(np.int64) | overflow << 31))
        place += 28 + size * capacity
    if not parts:
        raise FormatError("without polarity events")
    word, t = (np.concatenate(column) for column in zip(*parts, strict=True))
    return sorted_events(word >> 17 & 0x7FFF, word >> 2 & 0x7FFF, t, word >> 1 & 1)


def parse_dat(data: bytes) -> Events:
    """Parse Prophesee's DAT, version 2 (N-CARS): a text header, a type and a size byte, then time and address words."""
    start = 0
    while data[start : start + 1] == b"%":
        start = data.find(b"\n", start) + 1 or len(data)
    if start == 0 or b"Version 2" not in data[:start]:
        raise FormatError('no DAT file of version 2: its header does not say "% Version 2"')
    if data[start + 1 : start + 2] != b"\x08":
        raise FormatError("no file of 8-byte events")
    raw = _records(data[start + 2 :], np.dtype([("t", "<u4"), ("data", "<u4")]), "8-byte events")
    word = raw["data"].astype(np.int64)
    return sorted_events(word & 0x3FFF, word >> 14 & 0x3FFF, raw["t"], word >> 28 & 1)


def parse_aedat4(data: bytes) -> Events:
    """Parse the event packets of AEDAT 4 (DV; CIFAR10-DVS as it is downloaded now), which are FlatBuffers."""
    magic = b"#!AER-DAT4.0\r\n"
    if not data.startswith(magic):
        raise FormatError("no AEDAT 4 file: it does not start with #!AER-DAT4.0")
    place = len(magic) + 4
    (size,) = struct.unpack_from("<i", data, len(magic))
    header = data[place : place + size]
    if len(header) < size:
        raise FormatError("cut off in its header")
    compression, table = flat_field(header, 0, "<i", 0), flat_field(header, 1, "<q", -1)
    place, end, parts = place + size, table if table > 0 else len(data), []
    while place < end:
        if place + 8 > len(data):
            raise FormatError("cut off in a packet's header")
        _, size = struct.unpack_from("<ii", data, place)
        packet = data[place + 8 : place + 8 + size]
        if size < 0 or len(packet) < size:
            raise FormatError("cut off in a packet")
        packet = _decompress(packet, compression)[4:]  # the first 4 bytes are the size
        if packet[4:8] == b"EVTS":
            parts.append(event_records(packet))
        place += 8 + size
    if not parts:
        raise FormatError("without event packets")
    raw = np.concatenate(parts)
    return sorted_events(raw["x"], raw["y"], raw["t"], raw["p"] != 0)


def _decompress(packet: bytes, number: int) -> bytes:
    """Decompress a packet; `number` is the header's index into COMPRESSIONS. Raises FormatError and UserError."""
    kind = COMPRESSIONS[number] if 0 <= number < len(COMPRESSIONS) else "unknown"
    try:
        if kind == "lz4":
            import lz4.frame

            return lz4.frame.decompress(packet)
        if kind == "zstd":
            import zstd

            return zstd.decompress(packet)
    except ImportError:
        raise UserError(f"AEDAT 4 files need {kind}: pip install {kind}") from None
    except Exception as error:  # zstd.Error derives from Exception alone
        if isinstance(error, (RuntimeError, ValueError, EOFError)) or type(error).__module__.startswith("zstd"):
            raise FormatError(f"damaged in a packet ({error})") from None
        raise
    if kind != "none":
        raise FormatError(f"compressed in an unknown way ({number})")
    return packet


def parse_mat(data: bytes) -> Events:
    """Parse .mat: CEP-DVS's x, y, ts (us) and p (-1, 1), or ST-MNIST's `spiketrain` `[101, N]`, taxels and seconds."""
    from scipy import io as scipy_io

    try:
        content = scipy_io.loadmat(
            io.BytesIO(data), verify_compressed_data_integrity=False
        )  # as CEP-DVS's files are read
        if {"x", "y", "ts", "p"} <= set(content):
            return sorted_events(content["x"], content["y"], content["ts"], content["p"] > 0)
        train = np.asarray(content["spiketrain"])
    except (scipy_io.matlab.MatReadError, LookupError, ValueError, TypeError, RuntimeError, OSError, *CUT_OFF) as error:
        reason = " ".join(str(error).split())
        raise FormatError(f"no .mat file with x, y, ts and p, or with a spiketrain ({reason})") from None
    if train.ndim != 2 or len(train) != 101:
        raise FormatError(f"a spiketrain of {train.shape}, not of 100 taxels and the time")
    column, taxel = np.nonzero(train[:100].T)  # taxels are 10 x 10, with -1, 0 or 1
    return sorted_events(taxel % 10, taxel // 10, np.rint(train[100][column] * 1e6), train[taxel, column] > 0)


def parse_npz(data: bytes) -> Events:
    """Parse .npz: SpikingJelly's arrays t, x, y, p, or ES-ImageNet's `pos` and `neg` `[N, 3]` of row, column, step."""
    columns = _npz_columns(data)
    if {"t", "x", "y", "p"} <= set(columns):
        return sorted_events(columns["x"], columns["y"], columns["t"], columns["p"] != 0)
    if {"pos", "neg"} <= set(columns):
        both = [columns[name].reshape(-1, 3) for name in ("neg", "pos")]
        row, column, t = np.concatenate(both).astype(np.int64).T
        return sorted_events(column, row, t, np.repeat((0, 1), [len(part) for part in both]))
    raise FormatError(f"no event file: it holds {', '.join(sorted(columns)) or 'nothing'}, not t, x, y, p nor pos, neg")


def _npz_columns(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise FormatError(f"no complete .npz file ({' '.join(str(error).split())})") from None


def parse_npy(data: bytes) -> Events:
    """Parse .npy: tonic's `[N, 4]` of x, y, polarity and milliseconds, or BrainCog's dictionary of t, x, y and p."""
    try:
        if columns := read_dictionary(data):
            return sorted_events(columns["x"], columns["y"], columns["t"], columns["p"] != 0)
        table = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise FormatError(f"no complete .npy file ({' '.join(str(error).split())})") from None
    if table.ndim != 2 or table.shape[1] != 4:
        raise FormatError(f"an array of {table.shape}, not [N, 4]")
    return sorted_events(table[:, 0], table[:, 1], table[:, 3] * 1000, table[:, 2] != 0)


PARSERS: dict[str, Callable[[bytes], Events]] = {
    ".bin": parse_bin,
    ".bs2": parse_bin,
    ".aedat": parse_aedat,
    ".aedat4": parse_aedat4,
    ".dat": parse_dat,
    ".mat": parse_mat,
    ".npz": parse_npz,
    ".npy": parse_npy,
}


def read_events(path: Path, sensor: tuple[int, int] | None = None) -> Events:
    """Read the events of a file; its suffix decides the format.

    With `sensor`, (columns, rows), every event must be inside it. Raises UserError for a file that is missing,
    damaged, of another format, of another sensor, or without events.
    """
    path = Path(path)
    if path.suffix not in PARSERS:
        raise UserError(f"{path} is no event file: known are {', '.join(PARSERS)}")
    try:
        events = PARSERS[path.suffix](read_file(path))
    except (FormatError, struct.error, ValueError) as error:
        raise UserError(f"{path} is {error}: replace or remove it") from None
    if not len(events):
        raise UserError(f"{path} has no events: replace or remove it")
    width, height = sensor or (events.x.max() + 1, events.y.max() + 1)
    outside = (events.x < 0) | (events.x >= width) | (events.y < 0) | (events.y >= height)
    if outside.any():
        first = np.flatnonzero(outside)[0]
        raise UserError(
            f"{path} has an event at ({events.x[first]}, {events.y[first]}), outside of a sensor of "
            f"{width} x {height}: it is damaged or of another data set; replace or remove it"
        )
    return events
