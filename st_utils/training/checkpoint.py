"""Checkpoints: one safetensors file each, verified before anything in it is used, and never unpickled.

The tensors of a nested state are the file's tensors, named by their path ("optimizer.state.3.exp_avg"). The rest
(keys, numbers, strings, nesting) is one JSON text in the file's `__metadata__`, beside a SHA-256 digest over that
text and over every tensor's name, dtype, shape and bytes. The same state always gives the same bytes. The format is
written and read here rather than by the safetensors package, so that a file is streamed to disk tensor by tensor,
and read once: what was verified is what is used. The package reads the files too.
"""

import contextlib
import hashlib
import json
import logging
import os
import secrets
from pathlib import Path

import numpy as np
import torch

from st_utils.errors import UserError
from st_utils.training.packing import DTYPES, pack, stored_bytes, unpack

FORMAT = "spiking-transformer-zoo checkpoint 1"
SUFFIX = ".safetensors"
_TORCH_TYPES = {name: dtype for dtype, name in DTYPES.items()}
_log = logging.getLogger(__name__)


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged or foreign; the line names the file and what is wrong with it."""


def save(path, state):
    """Write the nested dict `state` to `path`, whole or not at all. Raises UserError when the disk refuses."""
    write_atomic(path, _serialized(state))


def load(path):
    """Return the state that `save` wrote, its tensors on the CPU. Raises CheckpointError unless all of it verifies."""
    return _Verified(path).state()


def save_rotating(folder, name, state):
    """Write `state` to `<name>.safetensors`; what was there becomes `<name>.prev.safetensors`, if it is sound.

    Stopped at any instant, this leaves a sound checkpoint wherever there was one: the new file is complete on disk
    before a name changes, the old one gets its second name before it loses the first, and a damaged one gets none.
    """
    last, prev = checkpoint_paths(folder, name)
    write_atomic(last, _serialized(state), before=lambda: _keep_sound(last, prev))


def load_newest(folder, name):
    """Return (state, path, warnings) of the newest sound checkpoint; `warnings` says what is wrong with a newer one.

    Raises CheckpointError, which names both files, when neither can be used.
    """
    last, prev = checkpoint_paths(folder, name)
    try:
        return load(last), last, []
    except CheckpointError as newer:
        try:
            state = load(prev)
        except CheckpointError as older:
            raise CheckpointError(f"no checkpoint to resume from: {newer}; {older}") from None
        warning = f"{newer}; going on from the one before it, {prev}"
    _log.warning(warning)
    return state, prev, [warning]


def checkpoint_paths(folder, name):
    """The two files that `save_rotating` keeps: (the newest, the one before it)."""
    return Path(folder) / f"{name}{SUFFIX}", Path(folder) / f"{name}.prev{SUFFIX}"


def write_atomic(path, chunks, before=None):
    """Make `path` the file of these chunks of bytes: a reader sees the old file or the new one, never a part.

    `before` is called when the new file is complete on disk and not yet in place. On any failure the old file is
    left as it was; the system's refusals become a UserError that names the path.
    """
    path = Path(path)
    spare = temporary(path)
    try:
        file = os.open(spare, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            for chunk in chunks:
                write_all(file, chunk)
            os.fsync(file)
        finally:
            os.close(file)
        if before is not None:
            before()
        os.replace(spare, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(spare)
        if isinstance(error, OSError):
            raise UserError(refusal(path, error)) from error
        raise


def write_all(file, data):
    """Write every byte to a file descriptor: one os.write may take only the first part."""
    rest = memoryview(data)
    while len(rest):
        rest = rest[os.write(file, rest) :]


def temporary(path):
    """A fresh hidden name beside `path`, for what is not yet complete. (Not from `random`, whose state is the run's.)"""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def sweep(folder):
    """Remove the unfinished files that killed processes left; only for the holder of the folder's lock."""
    for spare in Path(folder).glob(".*.tmp"):
        with contextlib.suppress(OSError):
            spare.unlink()


def refusal(path, error):
    """One line for an OSError met while writing `path`."""
    return f"cannot write {path}: {error.strerror or error}; free or choose another place (--output)"


def _sync_folder(folder):
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:  # the new name is in place; some network file systems can't sync a folder
        _log.debug("%s: folder not synced: %s", folder, error)
    finally:
        os.close(handle)


def _keep_sound(last, prev):
    """Give the file `last` the name `prev` as well, unless it is damaged: then `prev` is the one worth keeping."""
    try:
        _Verified(last)
    except CheckpointError as error:
        if last.exists():
            _log.warning("%s; it is replaced, and not kept", error)
        return
    if prev.exists() and prev.samefile(last):  # killed here the last time; renaming one link onto another does nothing
        return
    spare = temporary(prev)
    try:
        os.link(last, spare)
    except OSError:  # a file system without hard links: `last` is away until the new one takes its name
        os.replace(last, prev)
    else:
        os.replace(spare, prev)


def _serialized(state):
    """The file's bytes, in chunks: the header's length and the header, then each tensor."""
    if not isinstance(state, dict):
        raise TypeError(f"a checkpoint's state is a dict, not {type(state).__name__}")
    tree, tensors = pack(state)
    text = json.dumps(tree, allow_nan=False, separators=(",", ":"))
    entries = {name: (DTYPES[tensor.dtype], list(tensor.shape)) for name, tensor in tensors.items()}
    digest = _digest(text, entries, lambda name: stored_bytes(tensors[name]))
    header, end = {"__metadata__": {"format": FORMAT, "state": text, "sha256": digest}}, 0
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # keeps each offset aligned
    for name in order:
        start, end = end, end + tensors[name].numel() * tensors[name].element_size()
        header[name] = {"dtype": entries[name][0], "shape": entries[name][1], "data_offsets": [start, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    yield len(head).to_bytes(8, "little") + head
    for name in order:
        yield stored_bytes(tensors[name])


def _digest(text, entries, bytes_of):
    """SHA-256, in hex, over the JSON text and over each tensor by name; `entries` is {name: (dtype, shape)}."""
    names = sorted(entries)
    digest = hashlib.sha256(json.dumps([FORMAT, text, [[name, *entries[name]] for name in names]]).encode())
    for name in names:
        digest.update(bytes_of(name))
    return digest.hexdigest()


class _Verified:
    """A checkpoint file's content, read once and checked to the last byte, or CheckpointError."""

    def __init__(self, path):
        self.path = Path(path)
        self._data = self._read()
        header = self._header()
        metadata = header.pop("__metadata__", None)
        self._entries = {name: self._entry(name, entry) for name, entry in header.items()}
        self._check_ranges()
        if not isinstance(metadata, dict) or set(metadata) != {"format", "state", "sha256"}:
            raise self._error("a safetensors file, but not a checkpoint of this project: no state in its __metadata__")
        if metadata["format"] != FORMAT:
            raise self._error(f"damaged, or of another version: its format is not {FORMAT!r}")
        entries = {name: (dtype, shape) for name, (dtype, shape, _, _) in self._entries.items()}
        if not isinstance(metadata["state"], str) or metadata["sha256"] != _digest(
            metadata["state"], entries, self._bytes
        ):
            raise self._error("damaged: its content does not match its sha256 digest")
        self._text = metadata["state"]

    def state(self):
        """The state as it was saved, in fresh memory."""
        tensors = {}
        for name, (dtype, shape, _, _) in self._entries.items():
            tensors[name] = torch.from_numpy(self._bytes(name)).clone().view(_TORCH_TYPES[dtype]).reshape(shape)
        try:
            state = unpack(json.loads(self._text), tensors)
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise self._error(f"its state cannot be read: {type(error).__name__}: {error}") from error
        return state

    def _error(self, what):
        return CheckpointError(f"{self.path}: {what}")

    def _read(self):
        try:
            if not self.path.is_file():
                raise self._error("not a file" if self.path.exists() else "no such file")
            return np.fromfile(self.path, dtype=np.uint8)
        except OSError as error:
            raise self._error(f"cannot be read: {error.strerror or error}") from error

    def _header(self):
        size = len(self._data)
        if not size:
            raise self._error("the file is empty")
        start = self._data[:16].tobytes()
        length = int.from_bytes(start[:8], "little")
        if size < 8 or length > size - 8:
            known = start[8:9] in (b"{", b"")
            raise self._error("truncated or damaged in its header" if known else "not a safetensors file")
        self._body = self._data[8 + length :]
        try:
            header = json.loads(self._data[8 : 8 + length].tobytes().decode())
        except (ValueError, RecursionError):
            raise self._error("damaged, or not a safetensors file: its header is not JSON") from None
        if not isinstance(header, dict):
            raise self._error("not a safetensors file: its header is not a JSON object")
        return header

    def _entry(self, name, entry):
        """(dtype, shape, start, end) of a tensor's line in the header."""
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise self._error(f"damaged: the header's entry {name!r} is not a tensor's")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _TORCH_TYPES:
            raise self._error(f"damaged: tensor {name!r} has the unknown dtype {dtype!r}")
        if not (_counts(shape) and _counts(offsets) and len(offsets) == 2):
            raise self._error(f"damaged: tensor {name!r} has no valid shape and offsets")
        return dtype, shape, offsets[0], offsets[1]

    def _check_ranges(self):
        """The tensors must fill the rest of the file in turn: no gap, no overlap, nothing left over."""
        end = 0
        for name, (dtype, shape, start, stop) in sorted(self._entries.items(), key=lambda item: item[1][2:]):
            count = int(np.prod(shape, dtype=object))
            if start != end or stop != start + count * _TORCH_TYPES[dtype].itemsize:
                raise self._error(f"damaged: tensor {name!r} is not where its shape says")
            end = stop
        if end != len(self._body):
            what = "truncated" if end > len(self._body) else "damaged"
            raise self._error(f"{what}: {end} bytes of tensors announced, {len(self._body)} found")

    def _bytes(self, name):
        _, _, start, end = self._entries[name]
        return self._body[start:end]


def _counts(value):
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
