"""Spikes of a run: the files that are written, of test images and of one's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from st_utils.errors import UserError
from st_utils.pictures import spikes
from zoo.show import spikes as show


@pytest.fixture
def drawn(monkeypatch) -> dict:
    """What is given to the functions that draw."""
    seen: dict = {}

    def spied(name: str):
        draw = getattr(spikes, name)

        def call(path, *arguments, **options):
            seen[path.name] = options or arguments
            return draw(path, *arguments, **options)

        return call

    for name in ("draw_raster", "draw_output"):
        monkeypatch.setattr(show, name, spied(name))
    return seen


def test_a_raster_and_one_test_image_of_each_class(trained_run, drawn):
    paths = zoo.show("spikes", trained_run.folder)
    assert [path.name for path in paths] == ["spikes.png", "spikes.gif"]
    assert paths[0].parent == trained_run.folder / "pictures"
    with Image.open(paths[1]) as film:
        assert film.n_frames == 2, "T = 2 steps"
    output = drawn["spikes.gif"]
    assert output["inputs"] == [str(c) for c in range(10)]
    assert output["meaning"] == "sum of the logits so far, / T"
    with torch.no_grad():
        logits = trained_run.model(output["frames"][0])  # the encoder repeats the image
    assert torch.allclose(output["gathered"][-1], logits, atol=1e-5)
    assert output["predicted"] == [str(c) for c in logits.argmax(1).tolist()]
    assert output["right"] == [logits[c].argmax().item() == c for c in range(10)]
    panels = drawn["spikes.png"][3]
    nodes = [n for n, m in trained_run.model.named_modules() if getattr(m, "part_kind", None) == "node"]
    assert sorted(panel.name for panel in panels) == sorted(nodes)


def test_files_of_ones_own(trained_run, drawn, tmp_path):
    draws = np.random.default_rng(0)
    (tmp_path / "b").mkdir()
    files = [tmp_path / "three.png", tmp_path / "b" / "three.png"]
    for file in files:
        Image.fromarray(draws.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(file)
    paths = zoo.show("spikes", trained_run.folder, images=[str(file) for file in files])
    assert [path.name for path in paths] == ["spikes_three-1.png", "spikes_three-2.png", "spikes.gif"]
    assert drawn["spikes.gif"]["right"] == [None, None], "nobody has said their classes"
    with pytest.raises(UserError, match="--show spikes draws up to 10 inputs, and --images names 11"):
        zoo.show("spikes", trained_run.folder, images=["a.png"] * 11)
