"""Checkpoints come back exactly or not at all: refused writes, kills, weights for other tools."""

import itertools
import os
import resource
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from st_utils.errors import UserError
from st_utils.training.checkpoint import (
    CheckpointError,
    load,
    load_newest,
    read_record,
    rotating_paths,
    save_rotating,
    save_weights,
    state_path,
)
from tests.training.checkpoints import content, parts, refused, same, saved, tiny, two_saves


class Tied(nn.Module):
    """A weight and a whole layer in two places, channels last, and a mask of -inf."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
        self.first, self.norm = nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4)
        self.again, self.last = self.norm, nn.Linear(4, 4, bias=False)
        self.last.weight = self.first.weight
        self.register_buffer("mask", torch.full((2, 2), -torch.inf))


def drawn(seed):
    torch.manual_seed(seed)
    model = Tied()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.randn(tensor.shape) * 9)
        model.first.weight[0, 0], model.first.weight[0, 1] = -0.0, 5e-42
    return model


@pytest.mark.parametrize("average", [False, True])
def test_weights_load_with_nothing_of_this_project(tmp_path, average):
    """Those that are tested, strictly, under all names of tied weights; the rest of the state has the others."""
    model, tested = drawn(0), drawn(1 if average else 0)
    ema = tested.state_dict() if average else None
    state = {"epoch": 1, "losses": [], "top1": 50.0, "model": model.state_dict(), "ema": ema, "skipped": 0}
    save_rotating(tmp_path, "last", state)
    save_weights(tmp_path / "best.safetensors", state)
    for name in ("last", "best"):
        plain, other = safetensors.torch.load_file(tmp_path / f"{name}.safetensors"), Tied()
        assert set(plain) == set(model.state_dict())
        other.load_state_dict(plain, strict=True)
        assert same(other.state_dict(), tested.state_dict())
    back = load(tmp_path / "last.safetensors")
    assert same(back, state)
    for key in ("model", "ema") if average else ("model",):
        assert back[key]._metadata == model.state_dict()._metadata
        assert back[key]["first.weight"] is back[key]["last.weight"]
    key = "ema" if average else "model"
    assert same(load(tmp_path / "best.safetensors"), {"epoch": 1, "top1": 50.0, key: tested.state_dict()})
    held = set(safetensors.torch.load_file(tmp_path / "last.state.safetensors"))
    once = {f"model.{name}" for name in plain if not name.startswith(("again.", "last."))}
    assert held == (once if average else set())  # no second copy of what stands in the weights' file


@pytest.mark.parametrize("steps", [0, 3])
def test_the_weights_file_says_what_it_is(tmp_path, steps):
    """Steps beyond the last test leave no accuracy to tell."""
    record = {"spec": "sdt", "full_spec": "sdt(dim=8)", "dataset": 'folder(path="\udcff")', "data": {}}
    state = {**tiny(4), "record": record, "losses": [0.5] * steps, "top1": 12.3456}
    _, metadata = parts(saved(tmp_path, state))
    told = {"epoch": "4", "step": "3"} if steps else {"epoch": "4", "top1": "12.35"}
    expected = {**told, **record, "dataset": 'folder(path="\\udcff")', "format": "spiking-transformer-zoo weights 2"}
    del expected["data"]
    assert {key: metadata[key] for key in {*expected, *metadata} - {"state", "sha256", "state_sha256"}} == expected
    assert read_record(tmp_path / "c.safetensors") == record


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

    names = ("model", "optimizer", "schedule")
    whole = training(seed=0)
    steps(whole, 2)
    state = {name: part.state_dict() for name, part in zip(names, whole, strict=True)}
    path = saved(tmp_path, {**state, "rng": torch.get_rng_state()})
    steps(whole, 3)
    resumed, state = training(seed=1), load(path)
    assert state["model"]._metadata == whole[0].state_dict()._metadata
    for name, part in zip(names, resumed, strict=True):
        part.load_state_dict(state[name])
    torch.set_rng_state(state["rng"])
    steps(resumed, 3)
    for one, other in zip(whole, resumed, strict=True):
        assert same(one.state_dict(), other.state_dict())
    assert "optimizer.state.3.exp_avg" in safetensors.torch.load_file(state_path(path))


def test_weights_without_their_state_are_tested_and_not_trained(tmp_path):
    save_rotating(tmp_path, "last", tiny(1))
    last, _ = rotating_paths(tmp_path, "last")
    state_path(last).rename(tmp_path / "aside")
    with refused(CheckpointError, last, state_path(last), "no such file"):
        load(last)
    with refused(CheckpointError, last):
        load_newest(tmp_path, "last")
    for weights in (load(last, alone=True), load_newest(tmp_path, "last", alone=True).state):
        assert same(weights, {"epoch": 1, "model": tiny(1)["model"]})
    for other in (tiny(2), {**tiny(1), "t": 0}):  # of another step; of the same weights
        save_rotating(tmp_path, "other", other)
        (tmp_path / "other.state.safetensors").replace(state_path(last))
        with refused(CheckpointError, last, state_path(last), "of another step"):
            load(last)
    (tmp_path / "aside").replace(state_path(last))
    assert same(load(last), tiny(1))
    with refused(CheckpointError, state_path(last), "its format is 'spiking-transformer-zoo state 2'"):
        load(state_path(last))


@pytest.mark.parametrize("large", ["weights", "state"])
def test_a_refused_write_leaves_the_old_files(tmp_path, monkeypatch, large):
    last, _ = rotating_paths(tmp_path, "last")
    two_saves(tmp_path)
    before = content(tmp_path)
    big = {"model": {"w": torch.zeros(30_000)}} if large == "weights" else {**tiny(3), "w": torch.zeros(30_000)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with refused(UserError, last if large == "weights" else state_path(last), "File too large"):
            save_rotating(tmp_path, "last", big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    fsync, calls = os.fsync, itertools.count()
    for wanted in range(2):  # of the weights; of the state
        calls = itertools.count()
        stop = lambda file, calls=calls, n=wanted: interrupt() if next(calls) == n else fsync(file)  # noqa: E731
        monkeypatch.setattr(os, "fsync", stop)
        with pytest.raises(KeyboardInterrupt):
            save_rotating(tmp_path, "last", tiny(3))
    assert content(tmp_path) == before and len(before) == 4


def interrupt():
    raise KeyboardInterrupt


CALLS = ("open", "write", "fsync", "close", "link", "replace")


def test_an_error_at_any_call_leaves_a_pair_of_one_step(tmp_path, monkeypatch):
    """Each call of the system in turn is refused; a failed write leaves no spare file behind."""
    refusals = 0
    for moment in range(1000):
        for path in tmp_path.iterdir():
            path.unlink()
        two_saves(tmp_path)
        calls = itertools.count()

        def failing(function, name, calls=calls, moment=moment):
            def call(*arguments, **options):
                result = function(*arguments, **options) if name == "close" else None  # a closed file stays closed
                if next(calls) == moment:
                    raise OSError(28, "No space left on device")
                return result if name == "close" else function(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, failing(getattr(os, name), name))
            try:
                save_rotating(tmp_path, "last", tiny(3))
            except UserError as error:
                assert "No space left on device" in str(error) and "\n" not in str(error)
                refusals += 1
        done = next(calls) <= moment
        state, _, _ = load_newest(tmp_path, "last")
        assert same(state, tiny(2)) or same(state, tiny(3))
        assert not list(tmp_path.glob(".*"))
        save_rotating(tmp_path, "last", tiny(4))
        assert same(tuple(load_newest(tmp_path, "last")), (tiny(4), tmp_path / "last.safetensors", []))
        assert load(tmp_path / "last.prev.safetensors")["epoch"] in (1, 2, 3)
        if done:
            break
    assert same(state, tiny(3)) and refusals >= 15


class Killed(BaseException):
    """Ends a write and lets nothing be cleaned up after it, as a kill does."""


def test_two_kills_in_a_row_at_any_two_changes_of_a_name(tmp_path, monkeypatch):
    """What the first leaves behind, names that two files share, is a state that the second save can be killed in."""

    def killed_save(epoch, moment):
        calls = itertools.count()

        def dying(function):
            def call(*arguments, **options):
                if next(calls) >= moment:
                    raise Killed
                return function(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for name in ("link", "replace", "unlink"):
                patch.setattr(os, name, dying(getattr(os, name)))
            try:
                save_rotating(tmp_path, "last", tiny(epoch))
            except Killed:
                return True
        return False

    def reached(low, high):
        state, path, warnings = load_newest(tmp_path, "last")
        assert low <= state["epoch"] <= high and same(state, tiny(state["epoch"])) and not warnings
        assert same(safetensors.torch.load_file(path), state["model"])
        before = load(tmp_path / "last.prev.safetensors")
        assert before["epoch"] <= state["epoch"] and same(before, tiny(before["epoch"]))
        return state["epoch"]

    monkeypatch.setattr(os, "fsync", lambda _: None)
    kills = set()
    for moments in itertools.product(range(12), repeat=2):
        for path in tmp_path.iterdir():
            path.unlink()
        two_saves(tmp_path)
        first = killed_save(3, moments[0])
        now = reached(2, 3)
        second = killed_save(4, moments[1])
        now = reached(now, 4)
        assert first or second or now == 4
        kills |= {moments} if first and second else set()
        save_rotating(tmp_path, "last", tiny(5))
        assert reached(5, 5)
    assert len(kills) > 30


@pytest.mark.parametrize("links", [True, False])
def test_rotation_keeps_the_previous_good_one(tmp_path, monkeypatch, caplog, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links")))
    last, prev = rotating_paths(tmp_path, "last")
    for path in (last, state_path(last)):
        for damage in (lambda path: path.write_bytes(path.read_bytes()[:-1]), Path.unlink):
            two_saves(tmp_path)
            assert same(tuple(load_newest(tmp_path, "last")), (tiny(2), last, [])) and same(load(prev), tiny(1))
            damage(path)
            caplog.clear()
            state, found, (warning,) = load_newest(tmp_path, "last")
            assert same(state, tiny(1)) and found == prev and str(last) in warning and str(prev) in warning
            assert caplog.messages == [warning] and "\n" not in warning
        two_saves(tmp_path)
        path.unlink()
        path.write_bytes(b"damaged")
        save_rotating(tmp_path, "last", tiny(3))  # must not put the damaged one in the good one's place
        assert same([load(last), load(prev)], [tiny(3), tiny(1)])
    last.write_bytes(b"")
    prev.write_bytes(b"")
    with refused(CheckpointError, last, prev):
        load_newest(tmp_path, "last")
