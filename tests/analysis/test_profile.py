"""Energy by hand, and the profile of whole models."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import zoo
from st_utils.analysis.profile import EnergyModel, profile
from st_utils.errors import UserError
from tests.analysis.firing_models import SIZE, lively


class TestByHand:
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
