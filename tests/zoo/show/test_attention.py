"""--show attention: the numbers that are drawn are those of the model, for the inputs that are named."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import zoo
from st_utils.analysis.attention import attention_maps
from st_utils.errors import UserError
from tests.attention.lively import lively
from zoo.show import attention
from zoo.show.subject import Subject


@pytest.fixture
def lively_model(trained_run, monkeypatch) -> nn.Module:
    """The model of the run with other weights: after one epoch its queries or keys may be silent."""
    model = lively(copy.deepcopy(trained_run.model)).float()
    monkeypatch.setattr(Subject, "model", property(lambda _subject: model))
    return model


@pytest.fixture
def drawn(monkeypatch) -> list[dict]:
    """What is drawn, instead of drawing it."""
    calls: list[dict] = []
    monkeypatch.setattr(attention, "draw_attention", lambda path, title, image, **rest: calls.append(
        {"path": path, "title": title, "image": image, **rest}) or path)  # fmt: skip
    monkeypatch.setattr(
        attention, "draw_overview", lambda path, *rest: calls.append({"path": path, "rest": rest}) or path
    )
    return calls


def test_one_command(trained_run):
    paths = zoo.show("attention", trained_run.folder, theme="dark")
    assert [path.name for path in paths] == ["attention.png", "attention-blocks.0.png"]
    assert all(path.parent == trained_run.folder / "pictures" for path in paths)
    for path in paths:
        corner = np.asarray(Image.open(path).convert("RGB"))[0, 0]
        assert tuple(corner) == (0x0D, 0x11, 0x17)  # the dark theme's paper


def test_the_files_and_the_query(trained_run, lively_model, tmp_path, drawn):
    files = []
    for number in range(2):
        pixels = np.random.RandomState(number).randint(0, 256, (8, 8)).astype(np.uint8)
        files.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(pixels).save(files[-1])
    zoo.show("attention", trained_run.folder, images=files, query=(7, 0))
    overview, first, second = drawn
    assert [page["path"].name for page in (first, second)] == ["attention-blocks.0-1.png", "attention-blocks.0-2.png"]
    assert "1.png" in second["title"]
    pixels = torch.from_numpy(np.asarray(Image.open(files[1])).copy()).float()
    assert second["query"] == (1, 0)
    assert second["image"].shape == (8, 8, 1)
    torch.testing.assert_close(second["image"][..., 0], (pixels - pixels.min()) / (pixels.max() - pixels.min()))
    assert not torch.equal(first["mean"], second["mean"])
    assert overview["rest"][2] == ["0.png", "1.png"]


def test_the_drawn_weights_are_the_models(trained_run, lively_model, drawn, monkeypatch):
    taken = []
    inputs = Subject.inputs
    monkeypatch.setattr(Subject, "inputs", lambda *asked: taken.append(inputs(*asked)) or taken[0])
    zoo.show("attention", trained_run.folder)
    page = drawn[1]
    found = attention_maps(lively_model, taken[0].inputs[:1])["blocks.0.attention.branch"]
    weights = found.map.weights[:, 0]  # [T, h, N, S, M], 2 x 2 tokens
    assert weights.any(), "the test is idle: the attention is silent"
    assert torch.equal(page["of_query"].flatten(3), weights[:, :, 3])  # the centre: row 1, column 1
    assert drawn[0]["rest"][4] == (0.5, 0.5)
    overview = drawn[0]["rest"][3][0].maps[0]
    torch.testing.assert_close(overview.flatten(), weights[:, :, 3].mean((0, 1, 2)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"query": (8, 0)}, r"query is \[8, 0\], outside the input's 8 x 8 pixels"), ({"query": (1,)}, "query")],
)
def test_a_query_outside(trained_run, settings, message):
    with pytest.raises(UserError, match=message):
        zoo.show("attention", trained_run.folder, **settings)


def test_sequences_are_refused():
    inputs = SimpleNamespace(shape=(1, 28, 1, 1, 28))
    subject = SimpleNamespace(inputs=lambda _count: (inputs, None, []), data=SimpleNamespace(name="smnist"))
    with pytest.raises(UserError, match="smnist is a sequence: --show attention draws images and event frames"):
        attention.draw(subject)
