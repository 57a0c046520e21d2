"""Checkpoints come back exactly or not at all: damage, refused writes, kills. (Full disks: test_run_folder.)"""

import collections
import contextlib
import copy
import math
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from st_utils.errors import UserError
from st_utils.training import checkpoint
from st_utils.training.checkpoint import CheckpointError, load, load_newest, save, save_rotating

ROOT = Path(__file__).parents[2]


def same(one, other):
    """Equal to the bit: types, key order, dtypes, shapes, strides, bytes."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        described = [(item.dtype, item.shape, item.stride()) for item in (one, other)]
        raw = [item.contiguous().reshape(-1).view(torch.uint8) for item in (one, other)]
        return described[0] == described[1] and torch.equal(*raw)
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other) or (math.isnan(one) and math.isnan(other))
    return one == other


def tiny(epoch=0):
    return {"epoch": epoch, "w": torch.full((3,), epoch / 7), "é": {1: torch.tensor(epoch)}, "t": (epoch / 3,)}


def two_saves(folder):
    save_rotating(folder, "last", tiny(1))
    save_rotating(folder, "last", tiny(2))


def parts(path):
    """A file's tensors and metadata, as the safetensors package reads them."""
    with safetensors.safe_open(path, "pt") as file:
        return safetensors.torch.load_file(path), file.metadata()


@contextlib.contextmanager
def refused(kind, *parts):
    with pytest.raises(kind) as error:
        yield
    assert "\n" not in str(error.value) and all(str(part) in str(error.value) for part in parts), error.value


@pytest.mark.parametrize("dtype", [*checkpoint._DTYPES], ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 5)], ids=str)
def test_every_dtype_and_shape_comes_back(tmp_path, dtype, shape):
    count = math.prod(shape) * dtype.itemsize
    bits = torch.randint(2 if dtype == torch.bool else 256, (count,), dtype=torch.uint8)
    tensor = bits.view(dtype).reshape(shape)
    save(tmp_path / "c.safetensors", {"t": tensor})
    assert same(load(tmp_path / "c.safetensors"), {"t": tensor})
    assert same(safetensors.torch.load_file(tmp_path / "c.safetensors"), {"t": tensor})


def test_plain_values_come_back_with_their_types(tmp_path):
    floats = [0.1, -0.0, 5e-324, 1e308, 1 / 3, math.inf, -math.inf, math.nan]
    state = {
        "numbers": [0, -1, 2**200, True, False, None, *floats],
        "text": ["", "spikformer(depth=2)", "naïve\n\0\ud800", "a.b"],
        "keys": {1: "int", "1": "str", (2, "x"): "tuple", None: 0, 2.5: 1, True + 1: "two", False: "bool"},
        "nested": ([], (), {}, [(1,), [2]], {"dict": {"tensor": ["x", None]}, "float": "nan"}),
        "kinds": [collections.OrderedDict(b=1, a=2), collections.Counter({30: 2, 60: 1})],
        "array": np.arange(6, dtype=np.uint32)[::2],
    }
    state["random"] = [random.getstate(), np.random.get_state(), torch.get_rng_state()]
    state["random"].append(np.random.default_rng(7).bit_generator.state)
    save(tmp_path / "c", state)
    assert same(load(tmp_path / "c"), state)
    save(tmp_path / "c", {"a": np.float64(0.1), "b": np.int64(3), "c": np.bool_(True)})
    assert same(load(tmp_path / "c"), {"a": 0.1, "b": 3, "c": True})


def test_strides_ties_views_and_names(tmp_path):
    base = torch.arange(24.0)
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    kernel = torch.randn(8, 3, 1, 1).to(memory_format=torch.channels_last)
    state = {
        "tied": [base, base.detach(), nn.Parameter(base)],
        "views": (base[2:5], base.view(4, 6), base[::2], base.view(4, 6).t(), base[:1].expand(3)),
        "layout": [image, kernel, image.permute(3, 0, 1, 2), kernel],
        "bits": [torch.tensor([1 + 2j]).conj(), torch.tensor([1 + 2j]).conj().imag],
        "a.b": torch.zeros(1),
        "a": {"b": torch.ones(1), 0: torch.ones(2), "0": torch.ones(3)},
        "names": {"__metadata__": torch.ones(4), "": {"": torch.ones(5)}, "\ud800": torch.ones(6)},
        "__metadata__": torch.ones(7),
    }
    save(tmp_path / "c", state)
    back = load(tmp_path / "c")
    for one, other in zip([*state["views"], *state["bits"]], [*back["views"], *back["bits"]], strict=True):
        assert torch.equal(one, other) and other.untyped_storage().nbytes() == other.nbytes
    assert all(same(state[key], back[key]) for key in ("layout", "a.b", "a", "names", "__metadata__"))
    assert back["layout"][1] is back["layout"][3]
    assert back["tied"][0] is back["tied"][1] is back["tied"][2] and same(back["tied"][0].add_(1), base + 1)


def test_training_goes_on_to_the_same_bits(tmp_path):
    def training(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
        optimizer = torch.optim.AdamW(model.to(memory_format=torch.channels_last).parameters(), lr=1e-2)
        return model, optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3])

    def steps(trained, count):
        model, optimizer, scheduler = trained
        for _ in range(count):
            optimizer.zero_grad()
            model(torch.randn(5, 2, 6, 6)).square().mean().backward()
            optimizer.step()
            scheduler.step()

    whole = training(seed=0)
    steps(whole, 2)
    state = {"parts": [part.state_dict() for part in whole], "rng": torch.get_rng_state()}
    save(tmp_path / "c", state)
    steps(whole, 3)
    resumed, state = training(seed=1), load(tmp_path / "c")
    assert state["parts"][0]._metadata == whole[0].state_dict()._metadata
    for part, saved in zip(resumed, state["parts"], strict=True):
        part.load_state_dict(saved)
    torch.set_rng_state(state["rng"])
    steps(resumed, 3)
    for one, other in zip(whole, resumed, strict=True):
        assert same(one.state_dict(), other.state_dict())
    assert "parts.1.state.3.exp_avg" in safetensors.torch.load_file(tmp_path / "c")


def test_equal_states_give_equal_files_in_any_writers_order(tmp_path):
    save(tmp_path / "a", tiny())
    save(tmp_path / "b", copy.deepcopy(tiny()))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    tensors, metadata = parts(tmp_path / "a")
    safetensors.torch.save_file(tensors, tmp_path / "b", metadata)
    assert same(load(tmp_path / "b"), tiny())


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, b"x", torch.float32, np.array(["x"]), np.zeros(1, complex),
              torch.zeros(1, dtype=torch.complex128), torch.eye(2).to_sparse(), torch.zeros(1, device="meta"),
              {frozenset(): 1}], ids=lambda value: type(value).__name__)  # fmt: skip
def test_what_cannot_be_stored_is_named(tmp_path, value):
    save(tmp_path / "c", tiny())
    with pytest.raises(TypeError, match=r"cannot hold .*'model\.x"):
        save(tmp_path / "c", {"model": {"x": value}})
    with pytest.raises(TypeError, match="a dict"):
        save(tmp_path / "c", [value])
    assert same(load(tmp_path / "c"), tiny()) and len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize("length", [0, 3, 6])  # the header's padding differs
def test_damage_anywhere_is_never_other_data(tmp_path, length):
    path, state, harmless = tmp_path / "c", {**tiny(3), "text": "x" * length}, []
    save(path, state)
    good = path.read_bytes()
    places = [(offset, 1 << bit) for offset in range(len(good)) for bit in range(8)]
    flipped = [good[:offset] + bytes([good[offset] ^ bit]) + good[offset + 1 :] for offset, bit in places]
    resized = [*(good[:length] for length in range(len(good))), good + b"\0", good + good, good[1:]]
    for content in flipped + resized:
        path.unlink()  # a truncated file would be flushed to disk, thousands of times
        path.write_bytes(content)
        try:
            assert same(load(path), state), content
            harmless.append(content)
        except CheckpointError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error), content
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
    content, word = FOREIGN[name]
    (tmp_path / "c").write_bytes(content)
    for path, why in ((tmp_path / "c", word), (tmp_path / "absent", "no such file"), (tmp_path, "not a file")):
        with refused(CheckpointError, path, why):
            load(path)


@pytest.mark.parametrize(("changes", "word"), [
    ({"sha256": "0" * 64}, "digest"), ({"state": "[]"}, "digest"), ({"format": "2"}, "version"),
    *(({"state": state, "sha256": None}, "makes no sense") for state in (
        "[", '{"dict":[[["x"],1]]}', '{"tensor":["x",null]}', '{"tensor":["w",[7]]}', '{"?":1}'))])  # fmt: skip
def test_a_well_formed_file_with_other_metadata_is_refused(tmp_path, changes, word):
    save(tmp_path / "c", tiny())
    tensors, metadata = parts(tmp_path / "c")
    metadata |= changes
    metadata["sha256"] = metadata["sha256"] or checkpoint._digest(metadata["state"], tensors)
    safetensors.torch.save_file(tensors, tmp_path / "c", metadata)
    with refused(CheckpointError, tmp_path / "c", word):
        load(tmp_path / "c")


def test_other_tensors_of_the_same_bytes_are_refused(tmp_path):
    save(tmp_path / "c", {"w": torch.arange(6.0)})
    tensors, metadata = parts(tmp_path / "c")
    w = tensors["w"]
    for other in ({"v": w}, {"w": w.view(2, 3)}, {"w": w.view(torch.int32)}, {}, {"v": torch.zeros(0), "w": w}):
        safetensors.torch.save_file(other, tmp_path / "c", metadata)
        with refused(CheckpointError, tmp_path / "c", "digest"):
            load(tmp_path / "c")


def test_a_refused_write_leaves_the_old_files(tmp_path, monkeypatch):
    last, prev = checkpoint.rotating_paths(tmp_path, "last")
    two_saves(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with refused(UserError, last, "File too large"):
            save_rotating(tmp_path, "last", {"w": torch.zeros(30_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_rotating(tmp_path, "last", tiny(3))
    assert same([load(last), load(prev)], [tiny(2), tiny(1)]) and len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize("links", [True, False])
def test_rotation_keeps_the_previous_good_one(tmp_path, monkeypatch, caplog, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links")))
    last, prev = checkpoint.rotating_paths(tmp_path, "last")
    for damage in (lambda: last.write_bytes(last.read_bytes()[:-1]), last.unlink):
        two_saves(tmp_path)
        assert same(load_newest(tmp_path, "last"), (tiny(2), last, [])) and same(load(prev), tiny(1))
        damage()
        caplog.clear()
        state, path, (warning,) = load_newest(tmp_path, "last")
        assert same(state, tiny(1)) and path == prev and str(last) in warning and str(prev) in warning
        assert caplog.messages == [warning] and "\n" not in warning
    two_saves(tmp_path)
    last.write_bytes(b"damaged")
    save_rotating(tmp_path, "last", tiny(3))  # must not put the damaged one in the good one's place
    assert same([load(last), load(prev)], [tiny(3), tiny(1)])
    last.write_bytes(b"")
    prev.write_bytes(b"")
    with refused(CheckpointError, last, prev):
        load_newest(tmp_path, "last")


# Each script runs in a process of its own, imports torch once, and kills its forks.
PROLOGUE = """
import os, random, sys, time, torch
from pathlib import Path
from st_utils.training.checkpoint import load, load_newest, save_rotating
folder = Path(sys.argv[1])
def save(epoch, size=5):
    save_rotating(folder, "last", {"epoch": epoch, "w": torch.full((size,), float(epoch))})
def check(low, high):
    loaded, _, warnings = load_newest(folder, "last")
    assert torch.all(loaded["w"] == loaded["epoch"]) and low <= loaded["epoch"] <= high, (loaded, low, high)
    assert not warnings and load(folder / "last.prev.safetensors")["epoch"] <= loaded["epoch"]
    return loaded["epoch"]
"""
AT_EVERY_CALL = """
def dying(function):
    def call(*args, **options):
        global left
        left -= 1
        if left < 0 and function is os_write:
            os_write(args[0], args[1][: len(args[1]) // 2])
        if left < 0:
            os.kill(os.getpid(), 9)
        return function(*args, **options)
    return call
os_write = os.write
for moment in range(1000):
    [file.unlink() for file in folder.iterdir()]
    save(1), save(2)
    child = os.fork()
    if not child:
        left = moment
        for name in ("open", "write", "fsync", "close", "link", "replace"):
            setattr(os, name, dying(getattr(os, name)))
        save(3)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    check(2, 3)
    save(4)
    check(4, 4)
    if status == 0:
        break
print(moment)
"""
AT_ANY_MOMENT = """
save(0, size=50_000)
start = time.perf_counter()
save(0, size=50_000)
one = time.perf_counter() - start
reached = 0
for kill in range(20):
    child = os.fork()
    if not child:
        for epoch in range(reached + 1, 10**9):
            save(epoch, size=50_000)
    time.sleep(random.uniform(0.1, 5) * one)
    os.kill(child, 9)
    os.waitpid(child, 0)
    reached = check(reached, 10**9)
print(kill + 1)
"""


@pytest.mark.parametrize("script", [AT_EVERY_CALL, AT_ANY_MOMENT], ids=["every call", "any moment"])
def test_a_kill_leaves_a_sound_checkpoint(tmp_path, script):
    command = [sys.executable, "-c", PROLOGUE + script, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 10  # kills
