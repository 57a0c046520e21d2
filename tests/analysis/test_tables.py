"""The profile as tables of text and as a picture."""

from __future__ import annotations

import copy
import json
import re

import pytest
import torch
from PIL import Image

from st_utils.analysis.profile import profile
from st_utils.analysis.tables import table, write
from st_utils.pictures.profile import draw_profile
from st_utils.pictures.style import STYLES
from tests.analysis.firing_models import SIZE, lively


@pytest.fixture(scope="module")
def found() -> dict:
    return profile(lively(f"sdt({SIZE}, attention=statten(chunk=2))"), torch.rand(2, 3, 16, 16), rounds=1)


def rows_below(text: str, title: str) -> dict[str, list[str]]:
    """The table below a title: label -> cells."""
    lines = text.split(title, 1)[1].splitlines()[1:]
    found = [re.split(r"  +", line) for line in lines[: lines.index("")]]
    return {label: cells for label, *cells in found}


def test_every_layer_step_block_and_chunk_is_in_the_text(found):
    text = table(found)
    assert "spike-driven after the first layer: yes" in text
    nodes = {layer["label"]: layer for layer in found["layers"] if layer["kind"] == "node"}
    steps = rows_below(text, "by time step")
    assert steps["step"] == ["1", "2", "3", "4"]
    for name, layer in nodes.items():
        assert steps[name] == [f"{rate:.3f}" for rate in layer["firing_by_step"]]
    chunks = rows_below(text, "by chunk of the attention")
    assert chunks["steps"] == ["1-2", "3-4"]
    assert set(chunks) - {"steps"} == {f"block 1 · attention · {part}" for part in ("q", "k", "v", "attn node")}
    blocks = rows_below(text, "by block: firing rates")
    assert blocks["block"][:6] == ["firing", "q", "k", "v", "attention", "mlp"]
    rates = [found["blocks"][1]["roles"][role]["firing_rate"] for role in ("q", "k", "v", "attention", "mlp")]
    assert blocks["block 1"][1:6] == [f"{rate:.3f}" for rate in rates]
    assert float(rows_below(text, "by block: ms")["block 1"][0]) == pytest.approx(found["blocks"][1]["ms"], abs=1e-3)


def test_many_steps_are_shown_as_means_of_several(found):
    long = copy.deepcopy(found) | {"steps": 40}
    for layer in [*long["layers"], *long["blocks"]]:
        if layer["firing_by_step"]:
            layer["firing_by_step"] = [0.0] * 39 + [0.5]
    steps = rows_below(table(long), "by time step")
    assert steps["step"][0] == "1-3"
    assert steps["step"][-1] == "40"
    assert steps["head node"][-1] == "0.500"


def test_a_layer_whose_steps_cannot_be_told_apart_is_named(found):
    changed = copy.deepcopy(found)
    next(layer for layer in changed["layers"] if layer["name"] == "head_node")["firing_by_step"] = None
    assert "steps can't be told apart in head node" in table(changed)
    assert "told apart" not in table(found)


def test_small_energies_are_nanojoules(found):
    text = table(found)
    q = next(layer for layer in found["layers"] if layer["label"] == "block 1 · attention · q" and layer["acs"])
    assert 0 < q["energy_mj"] < 0.0005
    (line,) = [line for line in text.splitlines() if line.startswith("block 1 · attention · q ") and "convol" in line]
    assert f"{q['energy_mj'] * 1e6:.3g}" in line.split()
    large = copy.deepcopy(found)
    for row in [*large["layers"], *large["blocks"]]:
        row["energy_mj"], row["energy_memory_mj"] = 2.5, 1250.0
    assert "nJ" not in table(large | {"totals": large["totals"] | {"energy_mj": 3.0, "energy_memory_mj": 4.0}})
    assert "mJ" in table(large)


def test_an_audit_shows_what_enters_alone(found):
    text = table(found, audit=True)
    assert "MACs" not in text.splitlines()[0]
    assert "time step" not in text
    assert len([line for line in text.splitlines() if "convolution" in line]) == sum(
        layer["kind"] == "convolution" for layer in found["layers"]
    )


def test_files(found, tmp_path):
    path = write(found, tmp_path / "profile", "a test")
    assert json.loads(path.read_text()) == found
    assert next(layer["name"] for layer in found["layers"] if layer["label"] == "block 1 · attention · k").startswith(
        "blocks.0.attention.branch.k"
    )
    light = Image.open(path.with_name("profile.png")).convert("RGB")
    draw_profile(tmp_path / "dark.png", "a test", found, theme="dark")
    dark = Image.open(tmp_path / "dark.png").convert("RGB")
    for image, theme in ((light, "light"), (dark, "dark")):
        assert "#{:02x}{:02x}{:02x}".format(*image.getpixel((0, 0))) == STYLES[theme].paper
        assert len(image.getcolors(image.width * image.height)) > 100


def test_a_model_without_neurons_has_no_map_of_steps(tmp_path):
    found = profile(torch.nn.Sequential(torch.nn.Linear(5, 3)), torch.ones(1, 5), rounds=1)
    assert found["blocks"][0]["firing_rate"] is None
    assert "time step" not in table(found)
    draw_profile(tmp_path / "none.png", "no neurons", found)
    assert (tmp_path / "none.png").stat().st_size > 1000
