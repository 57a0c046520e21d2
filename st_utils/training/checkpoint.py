"""Checkpoints: one safetensors file each, verified before anything in it is used, and never unpickled.

The tensors of a nested state are the file's tensors, named by their path ("optimizer.state.3.exp_avg"). The
rest (keys, numbers, strings, nesting) is one JSON text in the file's `__metadata__`, beside a SHA-256 digest
over it and over every tensor's name, dtype, shape and bytes. Equal states give equal files. The safetensors
package reads them; they are written here: tensor by tensor, in a fixed order, with the disk's errors in hand.
"""

import hashlib
import json
import logging
import math
import os
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from st_utils.errors import UserError
from st_utils.files import spare_name, write_atomic

FORMAT = "spiking-transformer-zoo checkpoint 1"
_DICTS = {"dict": dict, "ordered": OrderedDict, "counter": Counter}
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.complex64: "C64", torch.bool: "BOOL",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8",
}  # fmt: skip
_log = logging.getLogger(__name__)


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged or foreign; the line names the file and what is wrong with it."""


def save(path, state):
    """Write the nested dict `state` to `path`, whole or not at all.

    It may hold tensors, numeric numpy arrays, numbers, strings, booleans, None, lists, tuples and dicts; else
    TypeError. Raises UserError when the disk refuses.
    """
    write_atomic(path, _serialized(state))


def load(path):
    """Return the state that `save` wrote, its tensors on the CPU; CheckpointError unless all of it verifies.

    The order in memory comes back too (channels last, say), and a tensor that was in two places is one again.
    """
    text, tensors = _verified(Path(path))
    # in torch's own memory, aligned like a tensor that was never saved: some kernels round by alignment
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    try:
        return _unpacked(json.loads(text), tensors)
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its state makes no sense ({error})") from error


def read_record(path):
    """The `record` of a checkpoint's state, what the run is, without reading its tensors; {} where there is none."""
    try:
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        state = dict(json.loads(header["__metadata__"]["state"])["dict"])
        return dict(_unpacked(state["record"], {}))
    except (OSError, ValueError, TypeError, LookupError, OverflowError, MemoryError):  # `load` says what is wrong
        return {}


def save_rotating(folder, name, state):
    """Write `state` to `<name>.safetensors`; what was there becomes `<name>.prev.safetensors`, if sound.

    Stopped at any instant, this leaves a sound checkpoint where there was one: the new file is complete on
    disk before a name changes, the old one gets its new name before it loses the first, a damaged one none.
    """
    last, prev = rotating_paths(folder, name)
    write_atomic(last, _serialized(state), before=lambda: _keep_sound(last, prev))


def load_newest(folder, name):
    """Return (state, path, warnings) of the newest sound checkpoint.

    When that is not the last one, `warnings` holds a line, also logged, saying what is wrong with the last.
    Raises CheckpointError, which names both files, when neither can be used.
    """
    last, prev = rotating_paths(folder, name)
    try:
        return load(last), last, []
    except CheckpointError as error:
        newer = error
    try:
        state = load(prev)
    except CheckpointError as older:
        raise CheckpointError(f"no usable checkpoint: {newer}; {older}") from None
    warning = f"{newer}; using the one before it, {prev}"
    _log.warning(warning)
    return state, prev, [warning]


def rotating_paths(folder, name):
    """The two files that `save_rotating` keeps: (the newest, the one before it)."""
    return Path(folder) / f"{name}.safetensors", Path(folder) / f"{name}.prev.safetensors"


def _keep_sound(last, prev):
    """Name the file `last` also `prev`; not a damaged one: then the old `prev` is the one worth keeping."""
    if not last.exists() or (prev.exists() and prev.samefile(last)):  # the same: killed just after this
        return
    try:
        _verified(last)
    except CheckpointError as error:
        _log.warning("%s; it is overwritten, and not kept as %s", error, prev.name)
        return
    spare = spare_name(prev)
    try:
        os.link(last, spare)
    except OSError:  # no hard links on this file system: for a moment only `prev` is there
        os.replace(last, prev)
    else:
        os.replace(spare, prev)


def _serialized(state):
    """The file's bytes: the header's length and the header, then each tensor."""
    if not isinstance(state, dict):
        raise TypeError(f"a checkpoint's state is a dict, not {type(state).__name__}")
    packer = _Packer()
    text = json.dumps(packer.pack(state), allow_nan=False, separators=(",", ":"))
    tensors, end = packer.tensors, 0
    header = {"__metadata__": {"format": FORMAT, "state": text, "sha256": _digest(text, tensors)}}
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # keeps offsets aligned
    for name in order:
        start, end = end, end + tensors[name].nbytes
        header[name] = {**_description(tensors[name]), "data_offsets": [start, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    yield len(head).to_bytes(8, "little") + head
    for name in order:
        yield _bytes(tensors[name])


def _verified(path):
    """(JSON text, {name: tensor}) of a checkpoint file whose digest matches, or CheckpointError."""
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not data:
        raise CheckpointError(f"{path}: the file is empty")
    try:
        tensors = safetensors.torch.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except Exception as error:  # whatever the package makes of a file that is none
        kind = "truncated or damaged" if data[8:9] == b"{" else "not a safetensors file"
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{path}: {kind} ({reason})") from error
    metadata = header.get("__metadata__") or {}
    if "state" not in metadata or "sha256" not in metadata:
        raise CheckpointError(f"{path}: a safetensors file, but not a checkpoint of this project")
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: damaged, or of another version: its format is not {FORMAT!r}")
    known = all(tensor.dtype in _DTYPES for tensor in tensors.values())
    if not known or _digest(metadata["state"], tensors) != metadata["sha256"]:
        raise CheckpointError(f"{path}: damaged: its content does not match its digest")
    return metadata["state"], tensors


def _digest(text, tensors):
    """SHA-256, in hex, over the JSON text and, by name, every tensor's name, dtype, shape and bytes."""
    names = sorted(tensors)
    known = [FORMAT, text, [[name, _description(tensors[name])] for name in names]]
    digest = hashlib.sha256(json.dumps(known).encode())
    for name in names:
        digest.update(_bytes(tensors[name]))
    return digest.hexdigest()


def _description(tensor):
    return {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape)}


def _bytes(tensor):
    """A contiguous tensor's bytes; as_strided, since one element counts as contiguous whatever its stride."""
    return tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy()


class _Packer:
    """Splits a state into a tree for JSON (`pack`'s result) and contiguous CPU tensors by name (`tensors`).

    JSON's own words stand for themselves; the rest is an object whose first key says what it is:
    {"tuple": [...]}, {"dict": [[key, value], ...]}, {"tensor": [name, order or null]}, {"ndarray": name},
    {"float": "nan"}. A tensor's `order` lists its dimensions as they lie in memory.
    """

    def __init__(self):
        self.tensors = {}
        self._nodes = {}  # by memory, so that tied tensors are stored once

    def pack(self, value, path=()):
        """The JSON tree of a value; `path` holds the keys that lead to it."""
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, torch.Tensor):
            return self._tensor(value.detach(), path)
        if isinstance(value, np.ndarray):
            return self._array(value, path)
        if isinstance(value, dict):
            return self._dict(value, path)
        if isinstance(value, (list, tuple)):
            items = [self.pack(item, (*path, str(index))) for index, item in enumerate(value)]
            return items if isinstance(value, list) else {"tuple": items}
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": repr(float(value))}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise _refused(path, f"a {type(value).__name__}")

    def _dict(self, value, path):
        for key in value:
            if not (key is None or isinstance(key, (bool, int, float, str, tuple))):
                raise _refused((*path, str(key)), f"a key of type {type(key).__name__}")
        items = [[self.pack(key, path), self.pack(item, (*path, str(key)))] for key, item in value.items()]
        node = {next((kind for kind, base in _DICTS.items() if type(value) is base), "dict"): items}
        if hasattr(value, "_metadata"):  # a state_dict's versions of its modules, which load_state_dict reads
            node["metadata"] = self.pack(value._metadata, path)
        return node

    def _array(self, array, path):
        try:
            tensor = torch.from_numpy(array.copy())
        except TypeError:
            tensor = None
        if tensor is None or tensor.dtype not in _DTYPES:
            raise _refused(path, f"an array of {array.dtype}")
        return {"ndarray": self._store(tensor, path)}

    def _tensor(self, tensor, path):
        if tensor.layout is not torch.strided or tensor.device.type == "meta" or tensor.dtype not in _DTYPES:
            raise _refused(path, f"a tensor of {tensor.dtype}, {tensor.layout}, on {tensor.device}")
        kind = (tensor.dtype, tensor.device, tensor.is_conj(), tensor.is_neg())
        memory = (tensor.data_ptr(), tensor.shape, tensor.stride(), *kind)
        if tensor.numel() == 0 or memory not in self._nodes:
            name = self._store(tensor.cpu().resolve_conj().resolve_neg().contiguous(), path)
            order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
            plain = order == sorted(order) or not tensor.permute(order).is_contiguous()
            self._nodes[memory] = {"tensor": [name, None if plain else order]}
        return self._nodes[memory]

    def _store(self, tensor, path):
        name = base = ".".join(path).encode("utf-8", "backslashreplace").decode()
        while name in self.tensors or name == "__metadata__":
            name = f"{base}#{len(self.tensors)}"
        self.tensors[name] = tensor
        return name


def _refused(path, what):
    return TypeError(f"a checkpoint cannot hold {what} (at {'.'.join(path)!r})")


def _unpacked(node, tensors):
    """The value that `_Packer.pack` made this tree from."""
    if isinstance(node, list):
        return [_unpacked(item, tensors) for item in node]
    if not isinstance(node, dict):
        return node
    kind, content = next(iter(node.items()))
    if kind == "tuple":
        return tuple(_unpacked(item, tensors) for item in content)
    if kind == "float":
        return float(content)
    if kind == "ndarray":
        return tensors[content].numpy()
    if kind == "tensor":
        name, order = content
        if order is not None:
            back = sorted(range(len(order)), key=order.__getitem__)
            laid_out = tensors[name].permute(order).clone(memory_format=torch.contiguous_format).permute(back)
            if laid_out.stride() != tensors[name].stride():  # else it has been here before, from a tied place
                tensors[name] = laid_out
        return tensors[name]
    value = _DICTS[kind]({_unpacked(key, tensors): _unpacked(item, tensors) for key, item in content})
    if "metadata" in node:
        value._metadata = _unpacked(node["metadata"], tensors)
    return value
