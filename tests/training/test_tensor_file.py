"""Files that are damaged, foreign or another writer's: refused in one line, or the same data."""

import copy
import hashlib
import json
import pickle

import pytest
import safetensors.torch
import torch

from st_utils.training import tensor_file
from st_utils.training.checkpoint import (
    CheckpointError,
    load,
    read_record,
    state_path,
)
from tests.training.checkpoints import BOTH, content, parts, refused, same, saved, tiny


def test_the_digest_is_what_the_documents_say(tmp_path):
    """SHA-256 of the strings in order, then names, dtypes and shapes, as JSON; then the tensors' bytes by name."""
    for name in (saved(tmp_path, tiny(3)), state_path(tmp_path / "c.safetensors")):
        tensors, metadata = parts(name)
        told = [[key, metadata[key]] for key in sorted(metadata) if key != "sha256"]
        dtypes = {torch.float32: "F32", torch.int64: "I64"}
        form = [[key, {"dtype": dtypes[t.dtype], "shape": list(t.shape)}] for key, t in sorted(tensors.items())]
        expected = hashlib.sha256(json.dumps([*told, form]).encode())
        for _, tensor in sorted(tensors.items()):
            expected.update(tensor.numpy().tobytes())
        assert metadata["sha256"] == expected.hexdigest()
    assert parts(tmp_path / "c.safetensors")[1]["state_sha256"] == metadata["sha256"]


def test_equal_states_give_equal_files_in_any_writers_order(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()
    saved(one, tiny()), saved(other, copy.deepcopy(tiny()))
    assert content(one) == content(other)
    for name in BOTH:
        safetensors.torch.save_file(*parts(one / name)[:1], other / name, parts(one / name)[1])
    assert same(load(other / "c.safetensors"), tiny())


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("length", [0, 3, 6])  # the header's padding differs
def test_damage_anywhere_is_never_other_data(tmp_path, length, name):
    state, harmless = {**tiny(3), "record": {"spec": "x" * length}}, []
    path = saved(tmp_path, state)
    good = (tmp_path / name).read_bytes()
    places = [(offset, 1 << bit) for offset in range(len(good)) for bit in range(8)]
    flipped = [good[:offset] + bytes([good[offset] ^ bit]) + good[offset + 1 :] for offset, bit in places]
    resized = [*(good[:length] for length in range(len(good))), good + b"\0", good + good, good[1:]]
    for data in flipped + resized:
        (tmp_path / name).unlink()  # a truncated file would be flushed to disk, thousands of times
        (tmp_path / name).write_bytes(data)
        try:
            assert same(load(path), state), data
            harmless.append(data)
        except CheckpointError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error), data
    assert len(harmless) < 8  # in tensor names, a hex digit of an escaped letter may change case
    assert not set(harmless) & set(resized)


FOREIGN = {
    "empty": (b"", "empty"),
    "text": (b"hello, this is no checkpoint at all\n" * 9, "not a safetensors"),
    "pickle": (pickle.dumps({"w": 1.5}), "not a safetensors"),
    "list": (b"\2" + bytes(7) + b"[]", "not a safetensors"),
    "deep": ((9**5 + 5).to_bytes(8, "little") + b'{"a":' + b"[" * 9**5, "truncated"),
    "weights": (safetensors.torch.save({"w": torch.zeros(3)}), "not a checkpoint"),
    "tagged": (safetensors.torch.save({"w": torch.zeros(3)}, {"format": "pt"}), "not a checkpoint"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_refused_in_one_line(tmp_path, name):
    data, word = FOREIGN[name]
    (tmp_path / "c").write_bytes(data)
    for path, why in ((tmp_path / "c", word), (tmp_path / "absent", "no such file"), (tmp_path, "not a file")):
        with refused(CheckpointError, path, why):
            load(path)
        assert read_record(path) == {}
    whole = saved(tmp_path, tiny())
    (tmp_path / BOTH[1]).write_bytes(data)
    with refused(CheckpointError, whole, tmp_path / BOTH[1], word):
        load(whole)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(("changes", "word"), [
    ({"sha256": "0" * 64}, "digest"), ({"state": "[]"}, "digest"), ({"format": "2"}, "version"),
    ({"more": "x"}, "digest"),
    *(({"state": state, "sha256": None}, "makes no sense") for state in (
        "[", '{"dict":[[["x"],1]]}', '{"tensor":["x",null]}', '{"tensor":["w",[7]]}', '{"?":1}'))])  # fmt: skip
def test_a_well_formed_file_with_other_metadata_is_refused(tmp_path, name, changes, word):
    path = saved(tmp_path, {**tiny(), "w": torch.ones(3)})
    tensors, metadata = parts(tmp_path / name)
    metadata |= changes
    if metadata["sha256"] is None:
        del metadata["sha256"]
        metadata = tensor_file.with_digest(metadata, tensors).metadata
        if name == BOTH[1]:  # the weights name it
            weights, told = parts(path)
            del told["sha256"]
            told = tensor_file.with_digest({**told, "state_sha256": metadata["sha256"]}, weights).metadata
            safetensors.torch.save_file(weights, path, told)
    safetensors.torch.save_file(tensors, tmp_path / name, metadata)
    with refused(CheckpointError, tmp_path / name, word):
        load(path)


@pytest.mark.parametrize("name", BOTH)
def test_other_tensors_of_the_same_bytes_are_refused(tmp_path, name):
    w = torch.arange(6.0)
    path = saved(tmp_path, {"w": w, "model": {"w": w}})
    _, metadata = parts(tmp_path / name)
    for other in ({"v": w}, {"w": w.view(2, 3)}, {"w": w.view(torch.int32)}, {}, {"v": torch.zeros(0), "w": w}):
        safetensors.torch.save_file(other, tmp_path / name, metadata)
        with refused(CheckpointError, tmp_path / name, "digest"):
            load(path)
