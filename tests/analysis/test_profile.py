"""Energy by hand, and the profile of whole models."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import zoo
from st_utils.analysis.profile import EnergyModel, profile
from st_utils.errors import UserError
from st_utils.layer.fold_norms import fold_norms
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

    def test_blocks_are_the_sums_of_their_layers(self):
        found = profile(lively(f"spikformer({SIZE})"), torch.rand(2, 3, 16, 16), rounds=1)
        totals, blocks = found["totals"], found["blocks"]
        assert [block["label"] for block in blocks] == ["embedding", "block 1", "head"]
        for name, total in {"macs": "macs", "acs": "sops", "energy_memory_mj": "energy_memory_mj", "ms": "ms"}.items():
            assert sum(block[name] for block in blocks) == pytest.approx(totals[total])
            for block in blocks:
                assert sum(role[name] for role in block["roles"].values()) == pytest.approx(block[name])
        assert set(blocks[1]["roles"]) == {"q", "k", "v", "attention", "mlp"}
        nodes = [layer for layer in found["layers"] if layer["block"] == "blocks.0" and layer["kind"] == "node"]
        spikes = sum(layer["firing_rate"] * layer["neuron_steps"] for layer in nodes)
        assert blocks[1]["firing_rate"] == pytest.approx(spikes / sum(layer["neuron_steps"] for layer in nodes))

    @pytest.mark.parametrize("form", ["as it is", "folded", "bf16"])
    def test_steps_and_chunks_against_a_count_of_ones_own(self, form):
        """Firing by step of every node, and by chunk in `statten`, from outputs that hooks of this test kept."""
        model = lively(f"spikformer({SIZE}, attention=statten(chunk=2))")
        x = torch.rand(3, 3, 16, 16)
        if form == "folded":
            model = fold_norms(model)
        if form == "bf16":
            model, x = model.bfloat16(), x.bfloat16()
        kept: dict[str, list[torch.Tensor]] = {}
        nodes = {name: m for name, m in model.named_modules() if getattr(m, "part_kind", None) == "node"}
        for name, node in nodes.items():
            node.register_forward_hook(lambda _m, _x, y, name=name: kept.setdefault(name, []).append(y.double()))
        found = profile(model, x, rounds=0)
        outputs = {name: torch.cat(ys[: len(x)], dim=1) for name, ys in kept.items()}  # an image at a time comes first
        rows = {layer["name"]: layer for layer in found["layers"] if layer["kind"] == "node"}
        assert rows.keys() == outputs.keys()
        for name, row in rows.items():
            assert row["firing_by_step"] == pytest.approx(outputs[name].flatten(1).mean(1).tolist())
            assert sum(row["firing_by_step"]) / 4 == pytest.approx(row["firing_rate"])
        for part in ("q", "k", "v"):
            name = f"blocks.0.attention.branch.{part}.node"
            chunks = outputs[name].unflatten(0, (2, 2)).flatten(1).mean(1).tolist()
            assert rows[name]["firing_by_chunk"] == pytest.approx(chunks)
            assert found["blocks"][1]["roles"][part]["firing_rate"] == pytest.approx(rows[name]["firing_rate"])
        assert sum(map(sum, (row["firing_by_step"] for row in rows.values()))) > 0.1
        assert not any("firing_by_chunk" in row for name, row in rows.items() if "attention.branch" not in name)

    def test_the_model_stays_as_it_was(self):
        model = lively(f"spikformer({SIZE})").train()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        profile(model, torch.rand(2, 3, 16, 16))
        assert model.training
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
