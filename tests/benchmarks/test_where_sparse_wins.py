"""Where sparse wins: the two ways alone, layers, summaries and energies by hand. No test asserts a time."""

from __future__ import annotations

import json
import math
import sys

import pytest
import torch
from torch import nn

from benchmarks.engines.prepare import Subject
from benchmarks.where_sparse_wins import __main__ as command
from benchmarks.where_sparse_wins import energy, layers, report
from benchmarks.where_sparse_wins.energy import COMPARISONS, Comparison, Counts
from benchmarks.where_sparse_wins.layers import Layer
from registry import create
from st_utils.kernels.spike_conv import op

TINY = "spikformer(img_size=8, embed_dim=16, depth=1, num_heads=2, mlp_ratio=1.0)"
needs_kernels = pytest.mark.skipif(not op.available(), reason="no C++ compiler")


# -- layers --------------------------------------------------------------------------------------------------
@needs_kernels
@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("layer", [Layer(40, 5, 24, 3, 1, 1), Layer(130, 3, 17, 1, 1, 0), Layer(5, 4, 8, 3, 2, 1)])
def test_each_way_gives_the_dense_product(layer, density):
    x = (torch.rand(3, layer.channels, layer.side, layer.side) < density).float()
    x, weight = (
        x.to(memory_format=torch.channels_last),
        torch.randn(layer.out, layer.channels, layer.kernel, layer.kernel),
    )
    works = layers.ways(x, weight, layer.geometry)
    for work in works.values():
        torch.testing.assert_close(work(), works["dense"](), rtol=1e-4, atol=1e-4)


@needs_kernels
def test_a_way_alone_is_another_library_and_the_one_in_use_chooses_as_before():
    """Few and most set: the library's sums are, bit for bit, those of the way that it takes."""
    in_use, alone = op.forward_library()._name, {}
    for way, few in layers.FEW.items():
        alone[way] = op.forward_library(f"-DZOO_FEW={few}")._name
    assert len({in_use, *alone.values()}) == 3
    weight, geometry = torch.randn(64, 64, 3, 3), Layer(64, 8, 64, 3, 1, 1).geometry
    for density, taken, other in ((0.1, "bits", "tables"), (0.9, "tables", "bits")):
        x = (torch.rand(2, 64, 8, 8) < density).float().to(memory_format=torch.channels_last)
        works = layers.ways(x, weight, geometry)
        assert torch.equal(works["chosen"](), works[taken]())
        assert not torch.equal(works["chosen"](), works[other]())
    assert op.forward_library()._name == in_use


@needs_kernels
def test_a_way_that_differs_is_not_measured(monkeypatch):
    row = layers.measure(Layer(16, 4, 16, 1, 1, 0), images=2, density=0.2, rounds=1)
    assert (row["name"], row["images"], row["density"]) == ("16 to 16, 1x1, 4x4", 2, 0.2)
    assert row["seconds"].keys() == {"dense", "bits", "tables", "chosen"}
    right = op.convolve
    monkeypatch.setattr(op, "convolve", lambda *args: right(*args) + 1)
    with pytest.raises(SystemExit, match="chosen differs from the dense product in 16 to 16, 1x1, 4x4"):
        layers.measure(Layer(16, 4, 16, 1, 1, 0), images=2, density=0.2, rounds=1)


def test_the_layers_of_a_model_each_once_without_the_first():
    """Widths of `spikformer` are d/8, d/4, d/2, d; pooling halves the last two stages."""
    assert layers.spiking_layers(TINY) == [
        Layer(2, 8, 4, 3, 1, 1),
        Layer(4, 8, 8, 3, 1, 1),
        Layer(8, 4, 16, 3, 1, 1),
        Layer(16, 2, 16, 3, 1, 1),
        Layer(16, 2, 16, 1, 1, 0),
    ]
    assert layers.layers_of([TINY, "csnn"])[Layer(16, 2, 16, 1, 1, 0)] == [TINY]


def test_a_strided_1x1_is_listed_as_it_is_computed():
    found = layers.spiking_layers("qkformer(img_size=16, embed_dim=32, depth=3, num_heads=2)")
    assert all(layer.stride == 1 and layer.padding == 0 for layer in found if layer.kernel == 1)
    assert Layer(8, 8, 16, 1, 1, 0) in found  # the shortcut from 16 x 16 to 8 x 8


# -- summaries -----------------------------------------------------------------------------------------------
def row(name: str, density: float, dense: float, bits: float, tables: float, chosen: float, images: int = 4) -> dict:
    seconds = {"dense": dense, "bits": bits, "tables": tables, "chosen": chosen}
    layer = Layer(2, 2, 2, 1, 1, 0)._asdict()
    return {"name": name, "layer": layer, "models": ["m"], "images": images, "density": density, "seconds": seconds}


ROWS = [
    row("a", 0.01, 8, 1, 4, 2),  # 4 times faster than dense; twice the time of the faster way
    row("b", 0.01, 8, 8, 4, 4),  # 2 times
    row("c", 0.01, 3, 9, 4, 4),  # slower: 0.75
    row("a", 0.04, 8, 4, 4, 4),
    row("a", 0.16, 8, 16, 4, 16),
]


def test_the_summary_by_density():
    first = report.by_density(ROWS)[0]
    assert first == {
        **{"images": 4, "density": 0.01, "layers": 3, "faster": 2},
        **{"least": 0.75, "median": 2.0, "most": 4.0, "slowest": "c", "lost": 1.0},
    }


def test_crossovers():
    """`a`: bits over tables is 1/4, 1, 4: equal at 0.04; bits over dense 1/8, 1/2, 2: at the root of 0.04 x 0.16."""
    (a, b, c) = report.crossovers(ROWS)
    assert (a["tables_from"], b["tables_from"], c["tables_from"]) == (0.04, 0.01, 0.01)
    assert a["dense_from_bits"] == pytest.approx(0.08) and a["dense_from"] == pytest.approx(0.08)
    assert b["dense_from"] is None and c["dense_from"] == 0.01
    assert a["dense_seconds"] == 8


# -- energy --------------------------------------------------------------------------------------------------
COUNTS = Counts(
    steps=4, image=10.0, real=8.0, dense=100.0, acs=40.0, weights=50.0, activations=16.0, read=6.0, neurons=5.0
)


@pytest.mark.parametrize(
    ("comparison", "dense", "spiking", "all_fire"),
    [
        (Comparison(float32=True), 112 * 0.3, 18 * 4.6 + 40 * 0.9, 400 * 0.9),
        (Comparison(), 112 * 0.3, 18 * 0.3 + 40 * 0.1, 400 * 0.1),
        (Comparison(bits=None), 112 * 0.175, 18 * 0.3 + 40 * 0.1, 400 * 0.1),
        (
            Comparison(bits=None, traffic="layer by layer"),
            112 * 0.175 + (50 + 16 * 3 / 8) * 24.96,
            18 * 0.3 + 40 * 0.1 + (50 + 6) * 24.96,
            400 * 0.1,
        ),
        (
            Comparison(traffic="step by step"),
            112 * 0.3 + (50 + 16) * 24.96,
            18 * 0.3 + 40 * 0.1 + (4 * 50 + 6 + 8 * 4 * 5) * 24.96,
            400 * 0.1,
        ),
    ],
)
def test_energies_and_break_even_by_hand(comparison, dense, spiking, all_fire):
    """The dense network has 10 + 8 / 4 + 100 multiply-accumulates; 3 bits tell apart what 4 steps do."""
    assert energy.dense_energy(COUNTS, comparison) == pytest.approx(dense)
    assert energy.spiking_energy(COUNTS, comparison) == pytest.approx(spiking)
    rate = energy.break_even(COUNTS, comparison)
    assert rate == pytest.approx((dense - (spiking - COUNTS.rate * all_fire)) / all_fire)
    assert energy.spiking_energy(COUNTS, comparison, rate) == pytest.approx(dense)


def test_without_the_image_the_break_even_of_operations_is_three_quarters():
    """An 8-bit multiply-accumulate is three 32-bit additions, and there are T = 4 steps."""
    counts = COUNTS._replace(image=0.0, real=0.0)
    assert energy.break_even(counts, Comparison()) == pytest.approx(3 / 4)
    assert energy.break_even(counts, Comparison(float32=True)) == pytest.approx(0.3 / (4 * 0.9))
    assert COUNTS.rate == 40 / 400
    assert [Comparison(bits=None).bits_at(steps) for steps in (1, 3, 4, 7, 8)] == [1, 2, 3, 3, 4]


class TwoLayers(nn.Module):
    """A real image through a 1 x 1 convolution, a neuron with T = 2, and a 1 x 1 convolution over its spikes."""

    step = 2

    def __init__(self):
        super().__init__()
        self.first, self.node, self.second = nn.Conv2d(1, 3, 1, bias=False), create("node", "lif"), nn.Conv2d(3, 2, 1)
        nn.init.constant_(self.first.weight, 4.0)

    def forward(self, x):
        spikes = self.node(self.first(x).expand(2, *[-1] * 4))
        return self.second(spikes.flatten(0, 1)).unflatten(0, (2, -1)).mean((0, 3, 4))


def test_the_counts_of_a_network_by_hand():
    """0.5 x 4 fires each neuron in each step, 0 none; half of the pixels are 0.5."""
    images = torch.tensor([0.0, 0.5]).repeat(2).view(1, 1, 2, 2)
    model = TwoLayers().eval()
    counts = energy.count(Subject("two", model, images, model(images), {}))
    assert counts == Counts(
        steps=2,
        image=4 * 3,
        real=0,
        dense=4 * 6,
        acs=2 * 2 * 3 * 2,  # steps, pixels, neurons, weights that a spike meets
        weights=3 + 6,
        activations=4 + 4 * 3,
        read=pytest.approx(4 * 4 + 2 * 4 * 3 / 8),  # a real image, a bit per spike
        neurons=4 * 3,
    )
    assert counts.rate == 0.5


# -- the command ---------------------------------------------------------------------------------------------
@needs_kernels
def test_the_command_writes_tables_and_a_picture(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(op, "LEAST", 0)
    file = tmp_path / "new" / "wins.json"
    options = ["--rounds", "1", "--threads", "1", "--batch", "1", "--density", "0.1", "0.5", "--images", "2"]
    monkeypatch.setattr(sys, "argv", ["where_sparse_wins", *options, "--model", TINY, "--out", str(file)])
    assert command.main() == 0
    result, tables = json.loads(file.read_text()), file.with_suffix(".md").read_text()
    assert len(result["layers"]) == 5 * 2 and {row["images"] for row in result["layers"]} == {4}
    assert result["instruction_set"] and result["instruction_set"] in tables.splitlines()[0]
    assert result["energy"][0]["comparisons"].keys() == COMPARISONS.keys()
    assert 0 < result["energy"][0]["rate"] < 1
    assert tables.count("16 to 16, 3x3, 2x2") >= 1 and "| never |" in tables
    assert tables == capsys.readouterr().out
    assert file.with_suffix(".png").stat().st_size > 1000


def test_a_silent_model_is_refused_in_a_line(monkeypatch, tmp_path, capsys):
    """One image: its logits can't differ from those of others."""
    file = tmp_path / "wins.json"
    monkeypatch.setattr(sys, "argv", ["x", "--images", "1", "--model", TINY, "--out", str(file)])
    assert command.main() == 2 and not file.exists()
    assert capsys.readouterr().err.startswith("error: the model's logits are the same for all images")


def test_energies_alone_need_no_picture(monkeypatch, tmp_path, capsys):
    file = tmp_path / "energy.json"
    monkeypatch.setattr(sys, "argv", ["x", "--part", "energy", "--images", "2", "--model", TINY, "--out", str(file)])
    assert command.main() == 0
    (found,) = json.loads(file.read_text())["energy"]
    assert found["counts"]["steps"] == 4 and math.isfinite(found["rate"])
    assert "layers" not in json.loads(file.read_text()) and not file.with_suffix(".png").exists()
    assert "break-even: 8 bits against 8 bits, operations" in capsys.readouterr().out
