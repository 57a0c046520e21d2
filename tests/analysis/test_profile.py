"""Operations and energy: by hand on small networks, and beside SpikingJelly's counters on whole models."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from st_utils.analysis.operations import OperationCounter, kind_of
from st_utils.analysis.profile import EnergyModel, profile
from st_utils.analysis.tables import draw, table
from st_utils.errors import UserError
from st_utils.node.ilif import ILIF


def count(model: nn.Module, *inputs: torch.Tensor) -> dict:
    with torch.no_grad(), OperationCounter(model) as counter:
        model(*inputs)
    return counter.layers


def one_spike(row: int, column: int, channels: int = 2, size: int = 4) -> torch.Tensor:
    x = torch.zeros(1, channels, size, size)
    x[0, 0, row, column] = 1
    return x


class TestByHand:
    def test_linear(self):
        layer = nn.Linear(5, 3)
        (spikes,) = count(layer, torch.tensor([[1.0, 0, 1, 0, 0], [0, 0, 0, 0, 1]])).values()
        assert (spikes.acs, spikes.macs, spikes.inputs) == (3 * 3, 0, "binary")  # 3 spikes, 3 weights each
        (reals,) = count(layer, torch.full((2, 5), 0.5)).values()
        assert (reals.acs, reals.macs, reals.inputs) == (0, 2 * 5 * 3, "real")
        (integers,) = count(layer, torch.tensor([[2.0, 0, 3, 0, 0]])).values()
        assert (integers.acs, integers.macs, integers.inputs) == (5 * 3, 0, "integer")  # a value of n is n spikes
        (silent,) = count(layer, torch.zeros(2, 5)).values()
        assert (silent.acs, silent.macs, silent.inputs) == (0, 0, "silent")

    @pytest.mark.parametrize(("place", "reached"), [((0, 0), 4), ((0, 1), 6), ((1, 1), 9)])
    def test_a_spike_meets_the_weights_that_reach_the_output(self, place, reached):
        (found,) = count(nn.Conv2d(2, 7, 3, padding=1), one_spike(*place)).values()
        assert (found.acs, found.macs) == (reached * 7, 0)
        assert found.dense == 4 * 4 * 9 * 2 * 7

    def test_stride_groups_and_transposition(self):
        (strided,) = count(nn.Conv2d(2, 7, 3, stride=2, padding=1), one_spike(1, 1)).values()
        assert strided.acs == 4 * 7  # the windows of rows and columns 0 and 1
        (depthwise,) = count(nn.Conv2d(2, 2, 3, padding=1, groups=2), one_spike(1, 1)).values()
        assert depthwise.acs == 9
        (grouped,) = count(nn.Conv2d(4, 6, 1, groups=2), one_spike(0, 0, channels=4)).values()
        assert grouped.acs == 3
        (transposed,) = count(nn.ConvTranspose2d(2, 5, 2, stride=2), one_spike(3, 3)).values()
        assert transposed.acs == 4 * 5

    def test_products_of_spikes(self):
        class Product(nn.Module):
            def forward(self, left, right):
                return left @ right

        q, k = torch.tensor([[[1.0, 1, 0], [0, 1, 1]]]), torch.tensor([[[1.0, 0], [1, 1], [0, 0]]])
        (both,) = count(Product(), q, k).values()
        assert both.acs == 2 + 1 + 1 + 1  # only where both fire
        (left,) = count(Product(), q, k * 0.5).values()
        assert (left.acs, left.macs, left.inputs) == (4 * 2, 0, "binary")
        (right,) = count(Product(), q * 0.5, k).values()
        assert right.acs == 3 * 2
        (neither,) = count(Product(), q * 0.5, k * 0.5).values()
        assert (neither.acs, neither.macs) == (0, 2 * 3 * 2)

    def test_energy(self):
        assert EnergyModel().operations(1e9, 0) == pytest.approx(4.6)
        assert EnergyModel().operations(0, 1e9) == pytest.approx(0.9)
        assert EnergyModel(mac_pj=1, ac_pj=2).operations(3e9, 4e9) == pytest.approx(11)
        with pytest.raises(UserError, match="ac_pj is -1: give pJ"):
            EnergyModel(ac_pj=-1)

    def test_a_profile_of_one_layer(self):
        model = nn.Sequential(nn.Linear(5, 3, bias=False))
        found = profile(model, torch.tensor([[1.0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]))
        totals = found["totals"]
        assert totals["sops"] == 4.5  # an image's
        assert totals["energy_mj"] == pytest.approx(4.5 * 0.9e-9)
        traffic = 15 * 4 + 5 / 8  # the weights and an image's five bits
        assert totals["energy_memory_mj"] == pytest.approx(4.5 * 0.9e-9 + traffic * 24.96e-9)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.0, 0.0], "silent"),
        ([0.0, 1.0], "binary"),
        ([0.0, 2.0], "integer"),
        ([-1.0, 1.0], "integer"),
        ([0.5], "real"),
    ],
)
def test_kinds(values, kind):
    assert kind_of(torch.tensor(values)) == kind


def lively(spec: str) -> nn.Module:
    """A model whose neurons fire."""
    torch.manual_seed(0)
    model = zoo.create_model(spec, img_size=16)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 1, 2)
            nn.init.uniform_(module.bias, 0.2, 0.8)
    with torch.no_grad():
        for _ in range(20):
            model.train()(torch.rand(4, 3, 16, 16))
    return model.eval()


SIZE = "embed_dim=32, depth=1, num_heads=2"


@pytest.mark.parametrize("spec", [f"sdt({SIZE})", f"sdt({SIZE}, attention=ssa)", f"sdt({SIZE}, attention=statten)"])
def test_beside_spikingjellys_counters(spec):
    """Binary networks: their synaptic operations and ours, and the MACs, are the same numbers."""
    from spikingjelly.activation_based.op_counter import DispatchCounterMode, MACCounter, SynOpCounter

    model, x = lively(spec), torch.rand(3, 4, 3, 16, 16)
    theirs, macs = SynOpCounter(), MACCounter()
    with torch.no_grad(), DispatchCounterMode([theirs]):
        model(x)
    ours = count(model, x)
    synops = sum(found.acs for found in ours.values() if found.inputs != "integer")
    assert synops > 1000
    # products of integers (q k' times v) are theirs through the binary operand, and ours
    assert sum(found.acs for found in ours.values()) == pytest.approx(theirs.get_total(), rel=0.02)
    convolutions = sum(found.macs for found in ours.values() if found.operation == "convolution")
    with torch.no_grad(), DispatchCounterMode([macs]):
        model.embedding.stages[0].conv(x.flatten(0, 1))
    assert convolutions == macs.get_total()


class TestProfile:
    def test_the_audit_tells_spike_driven_models_from_others(self):
        x = torch.rand(2, 3, 16, 16)
        sdt = profile(lively(f"sdt({SIZE})"), x)["totals"]
        assert sdt["spike_driven"], sdt["not_spike_driven"]
        spikformer = profile(lively(f"spikformer({SIZE})"), x)["totals"]
        assert not spikformer["spike_driven"]
        assert any(
            name.startswith("blocks.0.attention.branch.q.conv (integer)") for name in spikformer["not_spike_driven"]
        )
        assert "head (real)" in spikformer["not_spike_driven"]
        assert not profile(zoo.create_model(f"vit({SIZE})", img_size=16), x)["totals"]["spike_driven"]

    def test_layers_and_sums(self):
        model = lively(f"spikformer({SIZE})")
        found = profile(model, torch.rand(2, 3, 16, 16))
        layers, totals = found["layers"], found["totals"]
        assert json.loads(json.dumps(found)) == found
        assert totals["sops"] == pytest.approx(sum(layer["acs"] for layer in layers))
        assert totals["energy_mj"] == pytest.approx(4.6e-9 * totals["macs"] + 0.9e-9 * totals["sops"])
        assert totals["energy_memory_mj"] > totals["energy_mj"]
        products = {layer["name"]: layer for layer in layers if layer["kind"] != "node"}
        weights = {n: p.numel() for n, p in model.named_parameters() if n.endswith(("conv.weight", "head.weight"))}
        assert {name: products[name.removesuffix(".weight")]["parameters"] for name in weights} == weights
        nodes = [layer for layer in layers if layer["kind"] == "node"]
        assert len(nodes) == 12
        assert all(0 <= layer["firing_rate"] <= 1 and layer["ms"] > 0 for layer in nodes)

    def test_the_model_stays_as_it_was(self):
        model = lively(f"spikformer({SIZE})").train()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        profile(model, torch.rand(2, 3, 16, 16))
        assert model.training
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())

    def test_table_and_picture(self, tmp_path):
        found = profile(lively(f"sdt({SIZE})"), torch.rand(2, 3, 16, 16))
        text = table(found)
        assert "blocks.0.attention.branch.q.conv" in text
        assert "spike-driven after the first layer: yes" in text
        assert "MACs" not in table(found, audit=True).splitlines()[0]
        draw(found, tmp_path / "profile.png", "a test")
        assert (tmp_path / "profile.png").stat().st_size > 10_000


def test_functional_products_count_for_the_module_that_asks():
    class Mixer(nn.Module):
        def forward(self, x):
            return F.linear(torch.einsum("bij,bkj->bik", x, x), torch.ones(2, x.shape[1]))

    model = nn.Sequential(Mixer())
    assert {layer for layer, _ in count(model, torch.ones(1, 3, 4))} == {"0"}


@pytest.mark.parametrize("normalize", [True, False])
def test_counts_of_integer_firing_by_hand(normalize):
    """0, 1, 3 and 4 spikes, given on as they are or as quarters, meet five weights each."""
    model = nn.Sequential(ILIF(4, normalize), nn.Linear(4, 5, bias=False))
    with OperationCounter(model) as counter, torch.no_grad():
        model(torch.tensor([[0.2, 1.3, 2.6, 9.0]]))
    (found,) = counter.layers.values()
    assert (found.inputs, found.acs, found.macs, found.dense) == ("integer", 8 * 5, 0, 20)
