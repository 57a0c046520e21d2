"""Small event files of every format, written byte by byte from the formats' definitions."""

import struct
from pathlib import Path

import h5py
import numpy as np
from scipy.io import savemat


def some_events(count: int = 200, width: int = 34, height: int = 34, seed: int = 0, span: int = 300_000) -> dict:
    """Events inside the sensor, with all four corners of it among them, in order of time."""
    random = np.random.RandomState(seed)
    x, y = random.randint(0, width, count), random.randint(0, height, count)
    x[:4], y[:4] = (0, width - 1, 0, width - 1), (0, 0, height - 1, height - 1)
    t = np.sort(random.randint(0, span, count))
    t[0], t[-1] = 0, span - 1
    return {"x": x, "y": y, "t": t, "p": random.randint(0, 2, count)}


def bin_bytes(x, y, t, p) -> bytes:
    rows = [[a, b, c << 7 | d >> 16 & 127, d >> 8 & 255, d & 255] for a, b, c, d in zip(x, y, p, t, strict=True)]
    return np.array(rows, np.uint8).tobytes()


def aedat2_bytes(x, y, t, p, header: str = "# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n") -> bytes:
    words = np.stack([np.asarray(x) << 8 | np.asarray(y) << 1 | np.asarray(p), np.asarray(t)], 1)
    return f"#!AER-DAT2.0\r\n{header}".encode() + words.astype(">u4").tobytes()


def aedat3_bytes(x, y, t, p) -> bytes:
    """A packet of another type, then two of polarity events, the second after an overflow of its 31 bits."""
    words = np.stack([np.asarray(x) << 17 | np.asarray(y) << 2 | np.asarray(p) << 1 | 1, np.asarray(t)], 1)
    parts = [b"#!AER-DAT3.1\r\n#Start-Time: ...\r\n#!END-HEADER\r\n"]
    for kind, rows in ((0, np.zeros((3, 2), int)), (1, words)):
        parts.append(struct.pack("<HHIIIIII", kind, 1, 8, 4, 0, len(rows), len(rows), len(rows)))
        parts.append(rows.astype("<u4").tobytes())
    return b"".join(parts)


def dat_bytes(x, y, t, p) -> bytes:
    words = np.stack([np.asarray(t), np.asarray(x) | np.asarray(y) << 14 | np.asarray(p) << 28], 1)
    return b"% Data file\n% Version 2\n\x00\x08" + words.astype("<u4").tobytes()


def aedat4_bytes(x, y, t, p, compression: int = 1) -> bytes:
    """A header, a packet of another type, and the events in two packets; compression 0 none, 1 LZ4, 3 zstd."""
    # table: its vtable (6 bytes: length, table size, place of field 0), then the table itself
    header = struct.pack("<I4sHHHHii", 16, b"IOHE", 6, 8, 4, 0, 8, compression)
    parts = [
        b"#!AER-DAT4.0\r\n",
        struct.pack("<i", len(header)),
        header,
        _packet(struct.pack("<I4s", 8, b"IMUS"), compression),
    ]
    for part in np.array_split(np.arange(len(t)), 2):
        structs = b"".join(struct.pack("<qhhB3x", t[i], x[i], y[i], p[i]) for i in part)
        table = struct.pack("<I4sHHHHiI", 16, b"EVTS", 6, 8, 4, 0, 8, 4) + struct.pack("<I", len(part))
        parts.append(_packet(table + structs, compression))
    return b"".join(parts)


def _packet(flat: bytes, compression: int) -> bytes:
    flat = struct.pack("<I", len(flat)) + flat
    if compression == 1:
        import lz4.frame

        flat = lz4.frame.compress(flat)
    if compression == 3:
        import zstd

        flat = zstd.compress(flat)
    return struct.pack("<ii", 0, len(flat)) + flat


def write_mat(path: Path, x, y, t, p) -> None:
    train = np.zeros((101, len(t)))
    train[np.asarray(y) * 10 + x, np.arange(len(t))] = 2 * np.asarray(p) - 1
    train[100] = np.asarray(t) / 1e6
    savemat(path, {"spiketrain": train})


def write(path: Path, x, y, t, p) -> None:
    """One file, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writers = {
        ".bin": bin_bytes, ".bs2": bin_bytes, ".aedat": aedat2_bytes, ".dat": dat_bytes, ".aedat4": aedat4_bytes,
    }  # fmt: skip
    if path.suffix in writers:
        path.write_bytes(writers[path.suffix](x, y, t, p))
    elif path.suffix == ".mat":
        write_mat(path, x, y, t, p)
    elif path.suffix == ".npz":
        np.savez(path, x=x, y=y, t=t, p=p)
    else:
        np.save(path, np.stack([x, y, p, np.asarray(t) // 1000], 1))


def write_shd(path: Path, labels, units=None, seed: int = 0) -> None:
    random = np.random.RandomState(seed)
    with h5py.File(path, "w") as file:
        kinds = h5py.vlen_dtype(np.float16), h5py.vlen_dtype(np.uint16)
        times = file.create_dataset("spikes/times", len(labels), kinds[0])
        rows = file.create_dataset("spikes/units", len(labels), kinds[1])
        for i in range(len(labels)):
            times[i] = np.sort(random.rand(50)).astype(np.float16)
            rows[i] = random.randint(0, 700, 50) if units is None else units
        file["labels"] = np.asarray(labels)
