"""A safetensors file with strings beside its tensors, and a SHA-256 over both, by which damage is noticed.

    file = with_digest({"format": "mine 1", "state": "{}"}, {"w": torch.ones(3)})
    write_atomic("x.safetensors", file.chunks())
    read(Path("x.safetensors"), "mine 1").tensors["w"]

The safetensors package reads these files. They are written here, tensor by tensor in a fixed order: equal contents
give equal files, a full disk raises an OSError that says so, and memory holds no second copy of all tensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from st_utils.errors import UserError

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.complex64: "C64", torch.bool: "BOOL",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8",
}  # fmt: skip


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged or foreign; the line names the file and what is wrong with it."""


class TensorFile(NamedTuple):
    """A file's strings (`__metadata__`, with "format", "state" and "sha256") and its contiguous CPU tensors by name."""

    metadata: dict[str, str]
    tensors: dict[str, Tensor]

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The file's bytes: the header's length and the header, then each tensor."""
        header: dict[str, Any] = {"__metadata__": self.metadata}
        order = sorted(self.tensors, key=lambda name: (-self.tensors[name].element_size(), name))  # aligned offsets
        end = 0
        for name in order:
            start, end = end, end + self.tensors[name].nbytes
            header[name] = {**_description(self.tensors[name]), "data_offsets": [start, end]}
        head = json.dumps(header, separators=(",", ":")).encode()
        head += b" " * (-len(head) % 8)
        yield len(head).to_bytes(8, "little") + head
        for name in order:
            yield _bytes(self.tensors[name])


def with_digest(metadata: Mapping[str, str], tensors: dict[str, Tensor]) -> TensorFile:
    """The file of these strings and contiguous CPU tensors, its digest among the strings."""
    return TensorFile({**metadata, "sha256": digest(sorted(metadata.items()), tensors)}, tensors)


def read(path: Path, *formats: str) -> TensorFile:
    """Read a file of one of these formats, else raise CheckpointError. The digest is not checked yet: see `verify`."""
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
    except Exception as error:  # whatever the package raises for what is no safetensors file
        kind = "truncated or damaged" if data[8:9] == b"{" else "not a safetensors file"
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{path}: {kind} ({reason})") from error
    metadata = header.get("__metadata__") or {}
    if "state" not in metadata or "sha256" not in metadata:
        raise CheckpointError(f"{path}: a safetensors file, but not a checkpoint of this project")
    if (kind := metadata.get("format")) not in formats:
        raise CheckpointError(f"{path}: damaged, or of another version: its format is {kind!r}, not {formats[0]!r}")
    return TensorFile(metadata, tensors)


def read_metadata(path: str | Path) -> dict[str, str]:
    """The strings in a safetensors file's header; {} where there are none. No tensor is read."""
    try:
        with open(path, "rb") as file:
            metadata = json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]
            return metadata if isinstance(metadata, dict) else {}
    except (OSError, ValueError, TypeError, LookupError, OverflowError, MemoryError, RecursionError):
        return {}


def verify(path: Path, file: TensorFile, known: Any = None) -> None:
    """Raise CheckpointError unless the file's digest is that of its content.

    `known` is what the digest is over beside the tensors: by default all strings but the digest itself.
    """
    if known is None:
        known = sorted(item for item in file.metadata.items() if item[0] != "sha256")
    sound = all(tensor.dtype in DTYPES for tensor in file.tensors.values())
    if not sound or digest(known, file.tensors) != file.metadata["sha256"]:
        raise CheckpointError(f"{path}: damaged: its content does not match its digest")


def digest(known: Any, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256, in hex, over values of JSON and, by name, every tensor's name, dtype, shape and bytes."""
    names = sorted(tensors)
    content = [*known, [[name, _description(tensors[name])] for name in names]]
    found = hashlib.sha256(json.dumps(content).encode())
    for name in names:
        found.update(_bytes(tensors[name]))
    return found.hexdigest()


def _description(tensor: Tensor) -> dict[str, Any]:
    return {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape)}


def _bytes(tensor: Tensor) -> memoryview:
    """A contiguous tensor's bytes; as_strided, since one element counts as contiguous whatever its stride."""
    return memoryview(tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy())
