"""Checkpoints come back exactly, or not at all: damage, full disks and kills at any moment."""

import collections
import copy
import json
import math
import os
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
        return described[0] == described[1] and torch.equal(raw(one), raw(other))
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, dict):
        return same(list(one), list(other)) and same(list(one.values()), list(other.values()))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other) or (math.isnan(one) and math.isnan(other))
    return one == other


def raw(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def tiny(epoch=0):
    return {"epoch": epoch, "w": torch.full((3,), float(epoch)), "n": {1: torch.tensor(epoch)}, "é": (epoch / 3,)}


def one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text and all(str(part) in text for part in parts), text
    return text


DTYPES = [*checkpoint._DTYPES]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
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
    save(tmp_path / "c", state)
    assert same(load(tmp_path / "c"), state)
    save(tmp_path / "c", {"a": np.float64(0.1), "b": np.int64(3), "c": np.bool_(True)})
    assert same(load(tmp_path / "c"), {"a": 0.1, "b": 3, "c": True})


def test_generators_states_come_back(tmp_path):
    state = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}
    state["generator"] = np.random.default_rng(7).bit_generator.state
    save(tmp_path / "c", state)
    assert same(load(tmp_path / "c"), state)


def test_strides_ties_views_and_names(tmp_path):
    base = torch.arange(24.0)
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    kernel = torch.randn(8, 3, 1, 1).to(memory_format=torch.channels_last)
    state = {
        "tied": [base, base.detach(), nn.Parameter(base)],
        "views": (base[2:5], base.view(4, 6), base[::2], base.view(4, 6).t(), base[:1].expand(3)),
        "layout": [image, kernel, image.permute(3, 0, 1, 2), kernel],
        "bits": [torch.tensor([1 + 2j]).conj(), torch.tensor([1 + 2j]).conj().imag],
        "a.b": torch.zeros(1), "a": {"b": torch.ones(1), 0: torch.ones(2), "0": torch.ones(3)},
        "__metadata__": torch.ones(4), "": {"": torch.ones(5)}, "\ud800": torch.ones(6),
    }  # fmt: skip
    save(tmp_path / "c", state)
    back = load(tmp_path / "c")
    flat = [*state["views"], *state["bits"], state["a.b"], *state["a"].values(), state["__metadata__"], state["\ud800"]]
    loaded = [*back["views"], *back["bits"], back["a.b"], *back["a"].values(), back["__metadata__"], back["\ud800"]]
    assert all(torch.equal(one, other) for one, other in zip(flat, loaded, strict=True))
    assert same(back["layout"], state["layout"]) and same(back[""], state[""])
    assert back["tied"][0] is back["tied"][1] is back["tied"][2] and same(back["tied"][0], base)
    assert back["layout"][1] is back["layout"][3]
    assert len({tensor.untyped_storage().data_ptr() for tensor in loaded}) == len(loaded)
    back["tied"][0].add_(1)


def training(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    return model, optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3])


def steps(parts, count):
    model, optimizer, scheduler = parts
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.randn(5, 2, 6, 6)).square().mean().backward()
        optimizer.step()
        scheduler.step()


def test_training_goes_on_to_the_same_bits(tmp_path):
    whole = training()
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
    with safetensors.safe_open(tmp_path / "a", "pt") as file:
        safetensors.torch.save_file({key: file.get_tensor(key) for key in file.keys()}, tmp_path / "b", file.metadata())  # noqa: SIM118
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


def test_a_flipped_bit_is_never_other_data(tmp_path):
    path = tmp_path / "c"
    save(path, tiny(3))
    good = path.read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    places = [(offset, bit) for offset in range(header) for bit in range(8)]
    places += [(random.Random(1).randrange(len(good)), bit % 8) for bit in range(300)]
    places += [(offset, bit) for offset in range(header, len(good)) for bit in range(8)]
    equal = 0
    for offset, bit in places:
        path.write_bytes(good[:offset] + bytes([good[offset] ^ (1 << bit)]) + good[offset + 1 :])
        try:
            assert same(load(path), tiny(3)), (offset, bit)
            equal += 1
        except CheckpointError as error:
            assert str(path) in str(error) and "\n" not in str(error), (offset, bit)
    assert equal < 16  # the hex digits of an escaped letter may change case


def test_a_truncated_or_longer_file_is_refused(tmp_path):
    path = tmp_path / "c"
    save(path, tiny(3))
    good = path.read_bytes()
    for content in [*(good[:length] for length in range(len(good))), good + b"\0", good + good, good[1:]]:
        path.write_bytes(content)
        with pytest.raises(CheckpointError) as error:
            load(path)
        one_line(error, path)


def rewritten(path, **changes):
    """A well-formed file whose metadata says something else."""
    with safetensors.safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        safetensors.torch.save_file(tensors, path, {**file.metadata(), **changes})


def test_foreign_files_are_refused_in_one_line(tmp_path):
    def refused(name, word):
        with pytest.raises(CheckpointError) as error:
            load(tmp_path / name)
        one_line(error, tmp_path / name, word)

    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello, this is no checkpoint at all\n" * 9)
    torch.save({"w": torch.zeros(3)}, tmp_path / "pickle")
    safetensors.torch.save_file({"w": torch.zeros(3)}, tmp_path / "weights")
    safetensors.torch.save_file({"w": torch.zeros(3)}, tmp_path / "tagged", {"format": "pt"})
    (tmp_path / "list").write_bytes((2).to_bytes(8, "little") + b"[]")
    (tmp_path / "deep").write_bytes((9**5).to_bytes(8, "little") + b"[" * 9**5)
    for name, word in {"empty": "empty", "text": "not a safetensors", "pickle": "not a safetensors",
                       "weights": "not a checkpoint", "tagged": "not a checkpoint", "list": "not a safetensors",
                       "deep": "", "absent": "no such file", ".": "not a file"}.items():  # fmt: skip
        refused(name, word)
    for changes, word in [({"sha256": "0" * 64}, "digest"), ({"state": "[]"}, "digest"), ({"format": "2"}, "version")]:
        save(tmp_path / "c", tiny())
        rewritten(tmp_path / "c", **changes)
        refused("c", word)


@pytest.mark.parametrize("text", ["[", '{"dict":[[["x"],1]]}', '{"tensor":["x",null]}', '{"tensor":["w",[7]]}', '{"?":1}'])
def test_a_made_up_state_with_a_right_digest_is_refused(tmp_path, text):
    save(tmp_path / "c", tiny())
    tensors = safetensors.torch.load_file(tmp_path / "c")
    rewritten(tmp_path / "c", state=text, sha256=checkpoint._digest(text, tensors))
    with pytest.raises(CheckpointError) as error:
        load(tmp_path / "c")
    one_line(error, tmp_path / "c", "makes no sense")


@pytest.fixture
def full_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def refuses_and_keeps(folder, state):
    with pytest.raises(UserError) as error:
        save_rotating(folder, "last", state)
    assert sorted(os.listdir(folder)) == ["last.prev.safetensors", "last.safetensors"]
    assert same(load(folder / "last.safetensors"), tiny(2)) and same(load(folder / "last.prev.safetensors"), tiny(1))
    return one_line(error, folder / "last.safetensors")


def two_saves(folder):
    save_rotating(folder, "last", tiny(1))
    save_rotating(folder, "last", tiny(2))


def test_a_full_disk_leaves_the_old_files(full_disk):
    two_saves(full_disk)
    assert "No space left" in refuses_and_keeps(full_disk, {"w": torch.zeros(30_000)})
    save_rotating(full_disk, "last", tiny(3))


def test_a_file_size_limit_leaves_the_old_files(tmp_path):
    two_saves(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        refuses_and_keeps(tmp_path, {"w": torch.zeros(30_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "taken").mkdir()
    for path in (tmp_path / "file" / "c", tmp_path / "absent" / "c", tmp_path / "taken"):
        with pytest.raises(UserError) as error:
            save(path, tiny())
        one_line(error, path)
    assert sorted(os.listdir(tmp_path)) == ["file", "taken"]
    if os.geteuid():
        tmp_path.chmod(0o555)
    else:
        os.seteuid(65534)
    try:
        with pytest.raises(UserError, match="Permission denied"):
            save(tmp_path / "c", tiny())
    finally:
        os.seteuid(os.getuid())
        tmp_path.chmod(0o755)


def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch):
    two_saves(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_rotating(tmp_path, "last", tiny(3))
    assert len(os.listdir(tmp_path)) == 2 and same(load_newest(tmp_path, "last")[0], tiny(2))


@pytest.mark.parametrize("links", [True, False])
def test_rotation_keeps_the_previous_good_one(tmp_path, monkeypatch, caplog, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links")))
    last, prev = checkpoint.rotating_paths(tmp_path, "last")
    two_saves(tmp_path)
    assert same(load_newest(tmp_path, "last"), (tiny(2), last, [])) and same(load(prev), tiny(1))
    for damage in (lambda: last.write_bytes(last.read_bytes()[:-1]), last.unlink):
        two_saves(tmp_path)
        damage()
        caplog.clear()
        state, path, (warning,) = load_newest(tmp_path, "last")
        assert same(state, tiny(1)) and path == prev and str(last) in warning and str(prev) in warning
        assert caplog.messages == [warning] and "\n" not in warning
    two_saves(tmp_path)
    last.write_bytes(b"damaged")
    save_rotating(tmp_path, "last", tiny(3))  # must not put the damaged one in the good one's place
    assert same(load(last), tiny(3)) and same(load(prev), tiny(1))
    last.write_bytes(b"")
    prev.write_bytes(b"")
    with pytest.raises(CheckpointError) as error:
        load_newest(tmp_path, "last")
    one_line(error, last, prev)
    with pytest.raises(CheckpointError, match="no such file"):
        load_newest(tmp_path / "absent", "last")


# Runs in a process of its own, whose forks are killed: `folder` is argv[1].
PROLOGUE = """
import os, random, signal, sys, time, torch
from pathlib import Path
from st_utils.training.checkpoint import load, load_newest, save_rotating
folder = Path(sys.argv[1])
def state(epoch, size=5):
    return {"epoch": epoch, "w": torch.full((size,), float(epoch))}
def epoch_of(loaded):
    assert torch.all(loaded["w"] == loaded["epoch"])
    return loaded["epoch"]
"""
AT_EVERY_CALL = """
def dying(function, half=False):
    def call(*args, **options):
        global left
        left -= 1
        if left < 0:
            if half and function is os_write:
                os_write(args[0], args[1][: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)
    return call
os_write, deaths = os.write, 0
for half in (False, True):
    for moment in range(1000):
        for file in folder.iterdir():
            file.unlink()
        save_rotating(folder, "last", state(1))
        save_rotating(folder, "last", state(2))
        child = os.fork()
        if not child:
            left = moment
            for name in ("open", "write", "fsync", "close", "link", "replace"):
                setattr(os, name, dying(getattr(os, name), half))
            save_rotating(folder, "last", state(3))
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        loaded, path, warnings = load_newest(folder, "last")
        assert epoch_of(loaded) in (2, 3) and not warnings, (moment, warnings)
        assert epoch_of(load(folder / "last.prev.safetensors")) in (1, 2)
        save_rotating(folder, "last", state(4))
        assert epoch_of(load_newest(folder, "last")[0]) == 4
        assert epoch_of(load(folder / "last.prev.safetensors")) in (1, 2, 3)
        if status == 0:
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        deaths += 1
print(deaths)
"""
AT_ANY_MOMENT = """
save_rotating(folder, "last", state(0))
reached = 0
for kill in range(20):
    child = os.fork()
    if not child:
        for epoch in range(reached + 1, 10**9):
            save_rotating(folder, "last", state(epoch, 50_000))
    time.sleep(random.uniform(0.002, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    loaded, path, warnings = load_newest(folder, "last")
    assert epoch_of(loaded) >= reached and not warnings
    reached = epoch_of(loaded)
print(reached)
"""


@pytest.mark.parametrize("script", [AT_EVERY_CALL, AT_ANY_MOMENT], ids=["every call", "any moment"])
def test_a_kill_leaves_a_sound_checkpoint(tmp_path, script):
    command = [sys.executable, "-c", PROLOGUE + script, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) >= 10
