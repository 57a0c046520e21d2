"""Nested states as one JSON tree and tensors by name, and back.

    packer = Packer()
    tree = packer.pack({"epoch": 3, "optimizer": [torch.ones(2)]})
    packer.tensors  # {"optimizer.0": tensor([1., 1.])}
    unpacked(json.loads(json.dumps(tree)), packer.tensors)  # the state again

A state may hold tensors, numeric numpy arrays, numbers, strings, booleans, None, lists, tuples and dicts. JSON's own
values stand for themselves; the rest is an object whose first key says what it is: {"tuple": [...]},
{"dict": [[key, value], ...]}, {"tensor": [name, order or null]}, {"ndarray": name}, {"float": "nan"}. `order` lists a
tensor's dimensions as they lie in memory (channels last, say), for files hold them in their usual order.
"""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from st_utils.training.tensor_file import DTYPES, CheckpointError, TensorFile, with_digest

Keys = tuple[str, ...]  # the keys that lead to a value
_DICTS = {"dict": dict, "ordered": OrderedDict, "counter": Counter}


def pack_file(said: Mapping[str, str], state: dict[str, Any], plain: str = "") -> TensorFile:
    """The file of a state, with `said` among its strings; see `Packer` for `plain`. Raises TypeError."""
    packer = Packer(plain)
    text = json.dumps(packer.pack(state), allow_nan=False, separators=(",", ":"))
    return with_digest({**said, "state": text}, packer.tensors)


def unpack_file(path: Path, file: TensorFile) -> dict[str, Any]:
    """The state in a file that was read from `path`. Raises CheckpointError."""
    # in torch's own memory, aligned like a tensor that was never saved: some kernels round by alignment
    tensors = {name: tensor.clone() for name, tensor in file.tensors.items()}
    try:
        return unpacked(json.loads(file.metadata["state"]), tensors)
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path}: its state makes no sense ({error})") from error


class Packer:
    """Splits a state into a tree for JSON, which `pack` returns, and contiguous CPU tensors by name, in `tensors`.

    A tensor is named by its path ("optimizer.state.3.exp_avg") and stored once where several places share it. Below the
    top-level key `plain` names are those of a `state_dict`, without that key, and each has a copy of its own: who loads
    the file with other tools finds every name of a model with tied weights.
    """

    def __init__(self, plain: str = ""):
        self.tensors: dict[str, Tensor] = {}
        self._plain = plain
        self._nodes: dict[tuple, dict] = {}  # by place in memory: tied tensors come back tied

    def pack(self, value: Any, path: Keys = ()) -> Any:
        """The JSON tree of a value. Raises TypeError, which names the path, for what a checkpoint can't hold."""
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, Tensor):
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

    def _dict(self, value: dict, path: Keys) -> dict[str, Any]:
        for key in value:
            if not (key is None or isinstance(key, (bool, int, float, str, tuple))):
                raise _refused((*path, str(key)), f"a key of type {type(key).__name__}")
        items = [[self.pack(key, path), self.pack(item, (*path, str(key)))] for key, item in value.items()]
        node = {next((kind for kind, base in _DICTS.items() if type(value) is base), "dict"): items}
        if hasattr(value, "_metadata"):  # a state_dict's versions of its modules, which load_state_dict reads
            node["metadata"] = self.pack(value._metadata, path)
        return node

    def _array(self, array: np.ndarray, path: Keys) -> dict[str, str]:
        try:
            tensor = torch.from_numpy(array.copy())
        except TypeError:
            tensor = None
        if tensor is None or tensor.dtype not in DTYPES:
            raise _refused(path, f"an array of {array.dtype}")
        return {"ndarray": self._store(tensor, path)}

    def _tensor(self, tensor: Tensor, path: Keys) -> dict[str, list]:
        if tensor.layout is not torch.strided or tensor.device.type == "meta" or tensor.dtype not in DTYPES:
            raise _refused(path, f"a tensor of {tensor.dtype}, {tensor.layout}, on {tensor.device}")
        kind = (tensor.dtype, tensor.device, tensor.is_conj(), tensor.is_neg())
        memory = (tensor.data_ptr(), tensor.shape, tensor.stride(), *kind)
        new = tensor.numel() == 0 or memory not in self._nodes
        if new or self._is_plain(path):
            name = self._store(tensor.cpu().resolve_conj().resolve_neg().contiguous(), path)
        if new:
            order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
            usual = order == sorted(order) or not tensor.permute(order).is_contiguous()
            self._nodes[memory] = {"tensor": [name, None if usual else order]}
        return self._nodes[memory]

    def _store(self, tensor: Tensor, path: Keys) -> str:
        path = path[1:] if self._is_plain(path) else path
        name = base = ".".join(path).encode("utf-8", "backslashreplace").decode()
        while name in self.tensors or name == "__metadata__":
            name = f"{base}#{len(self.tensors)}"
        self.tensors[name] = tensor
        return name

    def _is_plain(self, path: Keys) -> bool:
        return bool(self._plain) and path[:1] == (self._plain,)


def _refused(path: Keys, what: str) -> TypeError:
    return TypeError(f"a checkpoint cannot hold {what} (at {'.'.join(path)!r})")


def unpacked(node: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that `Packer.pack` made this tree from; a tensor that was laid out otherwise is so in `tensors` too."""
    if isinstance(node, list):
        return [unpacked(item, tensors) for item in node]
    if not isinstance(node, dict):
        return node
    kind, content = next(iter(node.items()))
    if kind == "tuple":
        return tuple(unpacked(item, tensors) for item in content)
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
    value = _DICTS[kind]({unpacked(key, tensors): unpacked(item, tensors) for key, item in content})
    if "metadata" in node:
        value._metadata = unpacked(node["metadata"], tensors)
    return value
