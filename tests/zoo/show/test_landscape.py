"""`--show landscape` on a run: its numbers are those of tests, of any processes, killed or not."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import main
import zoo
from st_utils.analysis.landscape import free_weights, random_directions
from st_utils.errors import UserError
from st_utils.training import checkpoint
from tests.processes import called
from zoo.show import landscape

LEARNS = {
    "model": "csnn(step=2)", "dataset": "digits", "img_size": 28, "epochs": 2, "train_images": 400, "test_images": 50,
    "batch_size": 20, "lr": 0.01, "device": "cpu", "recipe": "none", "keep_checkpoints": 1,
}  # fmt: skip
GRID = {"x": "-1:1:3", "y": "-0.5:0.5:3"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> zoo.Result:
    """A run of two epochs, whose three checkpoints are kept: as drawn and after each epoch."""
    return zoo.run(output=tmp_path_factory.mktemp("runs"), **LEARNS)


@pytest.fixture(scope="module")
def surface(trained) -> dict[str, np.ndarray]:
    """A surface of 3 x 3 points, measured by one process and not killed."""
    zoo.show("landscape", trained.folder, **GRID)
    return kept(trained.folder)


def kept(folder: Path) -> dict[str, np.ndarray]:
    """The one surface in a run's folder; it is taken away, so that the next call measures anew."""
    (path,) = (folder / "pictures").glob("landscape-*.h5")
    with h5py.File(path) as file:
        found = {name: values[:] for name, values in file.items()} | dict(file.attrs)
    path.unlink()
    return found


def show(folder: Path) -> None:
    zoo.show("landscape", folder, **GRID)


def show_slowly(folder: Path) -> None:
    """Measure the surface, writing it down after each point, with some time between them."""
    measure = landscape.evaluate

    def evaluate(*arguments, **options):
        time.sleep(0.05)
        return measure(*arguments, **options)

    landscape.SECONDS, landscape.evaluate = 0, evaluate
    show(folder)


def same_surface(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_the_centre_is_the_runs_own_test_and_the_model_is_left_as_it_was(trained, surface):
    assert trained.summary["top1"] > 20, "a model that learned nothing has a flat landscape"
    assert surface["centre_loss"] == surface["loss"][1, 1] == trained.summary["test_loss"]
    assert surface["centre_top1"] == surface["top1"][1, 1] == trained.summary["top1"]
    assert surface["firing_rate"][1, 1] == trained.summary["firing_rate"]
    assert len(np.unique(surface["loss"])) == 9 and surface["measured"].all()
    shown = zoo.run(resume=trained.folder, show="landscape", x="-1:1:2")
    kept(trained.folder)
    assert not shown.model.training and not any(module._forward_hooks for module in shown.model.modules())
    for name, tensor in checkpoint.load(trained.folder / "last.safetensors")["model"].items():
        assert torch.equal(shown.model.state_dict()[name], tensor)


def test_a_point_is_the_test_of_a_checkpoint_with_these_weights(trained, surface, tmp_path):
    """The fused kernels see weights that are changed in place: a fresh model with these weights gives the same loss."""
    state = checkpoint.load(trained.folder / "last.safetensors", alone=True)
    weights = free_weights(trained.model)
    one, other = random_directions(weights, 2, seed=0)
    for row, column, y, x in ((0, 0, -0.5, -1.0), (1, 2, 0.0, 1.0), (2, 1, 0.5, 0.0)):
        changed = {n: (w.double() + x * one[n].double() + y * other[n].double()).float() for n, w in weights.items()}
        checkpoint.save_weights(tmp_path / "point.safetensors", {**state, "model": {**state["model"], **changed}})
        figures = zoo.evaluate(tmp_path / "point.safetensors", **LEARNS).summary
        assert figures["test_loss"] == surface["loss"][row, column]
        assert figures["top1"] == surface["top1"][row, column]


def test_two_processes_measure_the_surface_of_one(trained, surface):
    """9 points for two processes, which know each other as torchrun's do: in the last round one has none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1]), "WORLD_SIZE": "2"}
    ranks = [names | {"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    processes = [called(show, trained.folder, **rank) for rank in ranks]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert same_surface(kept(trained.folder), surface)


def test_killed_it_goes_on(trained, surface, monkeypatch):
    pictures, measure = trained.folder / "pictures", landscape.evaluate
    process = called(show_slowly, trained.folder)

    def done() -> int:
        for path in pictures.glob("landscape-*.h5"):
            with h5py.File(path) as file:
                return int(file["measured"][:].sum())
        return 0

    until = time.monotonic() + 60
    while done() < 3 and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.join()
    before = done()
    assert 3 <= before < 9
    calls = []

    def counted(*arguments, **options):
        calls.append(1)
        return measure(*arguments, **options)

    monkeypatch.setattr(landscape, "evaluate", counted)
    zoo.show("landscape", trained.folder, **GRID)
    assert len(calls) == 1 + 9 - before, "the centre and what was left"
    calls.clear()
    zoo.show("landscape", trained.folder, theme="dark", **GRID)
    assert not calls, "a whole surface is drawn again without measuring"
    assert same_surface(kept(trained.folder), surface)


def test_other_weights_directions_images_and_grids_are_other_surfaces(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(landscape, "_pictures", lambda *_: [])
    small, epoch = {"x": "-1:1:2", "test_images": 10}, trained.folder / "epoch-0001.safetensors"
    found = [
        zoo.show("landscape", run, output=tmp_path, **{**small, **further})[-1]
        for run in (trained.folder, epoch)
        for further in ({}, {"landscape_seed": 1}, {"landscape_fixed": "none"}, {"test_images": 11}, {"x": "-1:1:3"})
    ]
    assert len({path.name for path in found}) == 10
    for path in found:
        path.unlink()


def test_a_flat_landscape_is_told(trained, tmp_path, caplog):
    """With a head of zeros all answers are the same."""
    state = checkpoint.load(trained.folder / "last.safetensors", alone=True)
    head = list(state["model"])[-2:]
    zeros = {name: torch.zeros_like(state["model"][name]) for name in head}
    checkpoint.save_weights(tmp_path / "flat.safetensors", {**state, "model": {**state["model"], **zeros}})
    settings = {**LEARNS, "test_images": 10, "x": "-1:1:2", "output": tmp_path}
    with caplog.at_level("WARNING", logger="zoo"):
        zoo.show("landscape", tmp_path / "flat.safetensors", **settings)
    assert "the loss is the same at all 2 points" in caplog.text


def test_the_checkpoints_of_a_run_make_its_trajectory(trained):
    states = [checkpoint.load(path, alone=True) for path in checkpoint.kept_paths(trained.folder)]
    assert [state["epoch"] for state in states] == [0, 1, 2]
    assert "top1" not in states[0] and states[2]["top1"] == trained.summary["top1"]
    last = checkpoint.load(trained.folder / "last.safetensors", alone=True)["model"]
    assert all(torch.equal(states[2]["model"][name], last[name]) for name in last)
    paths = zoo.show("landscape", trained.folder, landscape_plane="trajectory", x="-1:1:2", y="-1:1:2", test_images=10)
    assert [path.name for path in paths][:2] == ["landscape-trajectory.png", "landscape-3d.png"]
    kept(trained.folder)


def test_a_run_without_kept_checkpoints_says_how_to_keep_them(trained, tmp_path):
    weights = trained.folder / "best.safetensors"
    with pytest.raises(
        UserError, match="has 0 kept checkpoints, a trajectory takes 3: train with --keep-checkpoints N"
    ):
        zoo.show("landscape", weights, output=tmp_path, landscape_plane="trajectory")


@pytest.mark.parametrize("words", [["--x", "-1:1"], ["--y=1:-1:5"], ["--x", "-1:1:x"]])
def test_a_grid_that_is_none_is_one_line(trained, words, capsys):
    assert main.main(["--show", "landscape", "--resume", str(trained.folder), *words]) == 2
    told = capsys.readouterr().err
    assert re.fullmatch(r"error: .*[xy] takes LOW:HIGH:COUNT, such as -1:1:51.*, not \S+\n", told), told
