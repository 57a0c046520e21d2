"""Counts at published sizes: ours and those of other tools, which must see every convolution, against hand counts."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import thop
import torch
from fvcore.nn import FlopCountAnalysis
from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import zoo
from benchmarks.firing import settle
from st_utils.analysis.operations import OperationCounter
from st_utils.analysis.profile import profile
from st_utils.kernels.spike_conv import op as sparse_conv

EVENTS = 'sdt(embed_dim=256, depth=2, mlp_ratio=1, embedding=ms_sps(pooling="1111"), step=8)'
SHAPES = {EVENTS: (8, 2, 64, 64)}
MODELS = ("spikformer", "sdt(embed_dim=192)", "qkformer(embed_dim=192)", "spikingresformer", "sdt_v3", EVENTS)


@cache
def firing(spec: str) -> tuple[nn.Module, torch.Tensor]:
    """The model, its norms settled so that it fires, and an image or recording."""
    torch.manual_seed(0)
    shape = SHAPES.get(spec, (3, 32, 32))
    model = zoo.create_model(spec, img_size=shape[-1], in_channels=shape[-3])
    return settle(model, torch.rand(4, *shape)).eval(), torch.rand(1, *shape)


def counted(model: nn.Module, x: torch.Tensor) -> dict:
    """Of each layer what enters it, MACs and ACs, per image."""
    layers = [layer for layer in profile(model, x, rounds=0)["layers"] if layer["kind"] != "node"]
    return {(layer["name"], layer["kind"]): (layer["inputs"], layer["macs"], layer["acs"]) for layer in layers}


def convolutions_that_run(model: nn.Module, x: torch.Tensor) -> set[str]:
    found: set[str] = set()
    convolutions = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv1d | nn.Conv2d)]
    handles = [m.register_forward_hook(lambda *_, name=name: found.add(name)) for name, m in convolutions]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("spec", MODELS)
def test_every_convolution_counts_whatever_computes_it(spec, monkeypatch):
    model, x = firing(spec)
    ours = counted(model, x)
    assert {name for name, kind in ours if kind == "convolution"} == convolutions_that_run(model, x)
    assert sum(acs for _, _, acs in ours.values()) > 1e6
    monkeypatch.setattr(sparse_conv, "_available", lambda: False)
    assert counted(model, x) == ours
    assert counted(model, x.expand(4, *x.shape[1:]).contiguous()) == ours
    monkeypatch.undo()
    monkeypatch.setattr(sparse_conv, "LEAST", 0)  # additions however small the layer
    assert counted(model, x) == ours


def test_a_large_batch():
    model, x = firing("sdt_v3")
    assert counted(model, x.expand(64, *x.shape[1:]).contiguous()) == counted(model, x)


@pytest.mark.parametrize("spec", ["spikformer", "sdt_v3", EVENTS])
def test_a_batch_is_the_sum_of_its_images(spec):
    """In float64, where no spike depends on how the batch is shared out among threads and blocks."""

    def counted(model: nn.Module, x: torch.Tensor) -> dict:
        with torch.no_grad(), OperationCounter(model) as counter:
            model(x)
        return {key: (found.macs / len(x), found.acs / len(x)) for key, found in counter.layers.items()}

    model = copy.deepcopy(firing(spec)[0]).double()
    images = torch.rand(3, *SHAPES.get(spec, (3, 32, 32)), dtype=torch.float64)
    images[1] *= 0.1  # so that what is integer in one image is binary or silent in another
    together = counted(model, images)
    alone = [counted(model, image[None]) for image in images]
    for key, (macs, acs) in together.items():
        assert macs == pytest.approx(sum(one[key][0] for one in alone) / 3, rel=1e-12)
        assert acs == pytest.approx(sum(one[key][1] for one in alone) / 3, rel=1e-12)


@pytest.mark.parametrize("spec", MODELS)
def test_torchs_and_spikingjellys_counters_agree(spec):
    model, x = firing(spec)
    with torch.no_grad(), OperationCounter(model) as ours:
        model(x)
    with torch.no_grad(), FlopCounterMode(display=False) as dense:
        model(x)
    assert dense.get_total_flops() == 2 * sum(found.dense for found in ours.layers.values())
    theirs = SynOpCounter()
    with torch.no_grad(), DispatchCounterMode([theirs]):
        model(x)
    # Theirs takes a tensor of integers for real numbers. Of a product of two signals it looks at the whole tensors.
    spiking = [found for found in ours.layers.values() if found.inputs in ("silent", "binary")]
    convolved = sum(found.acs for found in spiking if found.operation == "convolution")
    assert theirs.records["Global"][torch.ops.aten.convolution.default] == convolved
    assert theirs.get_total() == pytest.approx(sum(found.acs for found in spiking), rel=3e-4)


class TestByHand:
    """Spikformer-4-384 on 32 x 32 pixels, T = 4: 8 x 8 tokens, 12 heads of 32 channels, hidden layers of 1,536."""

    STEM = 32**2 * 9 * 3 * 48 + 4 * 9 * (32**2 * 48 * 96 + 32**2 * 96 * 192 + 16**2 * 192 * 384 + 8**2 * 384 * 384)
    BLOCKS = 4 * 4 * 64 * (4 * 384 * 384 + 2 * 384 * 1536)
    PRODUCTS = 4 * 4 * 2 * 64 * 32 * 384  # Q (K' V): two products of 64 x 32 x 32 in each of 12 heads
    HEAD = 4 * 384 * 10
    PARAMETERS = 9_324_730  # docs/published.md

    def test_ours(self):
        totals = profile(*firing("spikformer"), rounds=1)["totals"]
        assert totals["dense"] == self.STEM + self.BLOCKS + self.PRODUCTS + self.HEAD
        assert totals["parameters"] == self.PARAMETERS
        assert not totals["spike_driven"]

    def test_torchs(self):
        model, x = firing("spikformer")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(x)
        assert counter.get_total_flops() == 2 * (self.STEM + self.BLOCKS + self.PRODUCTS + self.HEAD)

    def test_torchs_in_training_and_on_the_backward_pass_alone(self):
        torch.manual_seed(0)
        model, x = zoo.create_model("spikformer"), torch.rand(1, 3, 32, 32)
        first = 32**2 * 9 * 3 * 48  # its input needs no gradient
        forward = self.STEM + self.BLOCKS + self.PRODUCTS + self.HEAD
        with FlopCounterMode(display=False) as counter:
            model(x).sum().backward()
        assert counter.get_total_flops() == 2 * (3 * forward - first)
        loss = model(x).sum()
        with FlopCounterMode(display=False) as counter:
            loss.backward()
        assert counter.get_total_flops() == 2 * (2 * forward - first)

    def test_torchs_on_a_compiled_model(self):
        model, x = firing("spikformer")
        compiled = torch.compile(copy.deepcopy(model))
        with torch.no_grad():
            compiled(x)
            with FlopCounterMode(display=False) as counter:
                compiled(x)
        assert counter.get_total_flops() == 2 * (self.STEM + self.BLOCKS + self.PRODUCTS + self.HEAD)

    def test_fvcores(self):
        analysis = FlopCountAnalysis(*firing("spikformer")).unsupported_ops_warnings(False)
        by_operator = analysis.uncalled_modules_warnings(False).by_operator()
        assert by_operator["conv"] == self.STEM + self.BLOCKS
        assert by_operator["matmul"] == self.PRODUCTS
        assert by_operator["linear"] == self.HEAD

    def test_thops(self):
        model, x = firing("spikformer")
        norms = {nn.BatchNorm2d: thop.vision.basic_hooks.zero_ops}
        operations, parameters = thop.profile(copy.deepcopy(model), (x,), custom_ops=norms, verbose=False)
        assert operations == self.STEM + self.BLOCKS + self.HEAD  # it sees layers alone
        assert parameters == self.PARAMETERS


def test_integers_on_shortcuts_are_told_however_little_a_network_fires():
    """The default Spikformer as drawn, whose neurons are nearly silent, and an SDT, which is spike-driven."""
    torch.manual_seed(0)
    spikformer = profile(zoo.create_model("spikformer").eval(), torch.rand(1, 3, 32, 32), rounds=1)["totals"]
    assert "blocks.1.attention.branch.q.conv (integer)" in spikformer["not_spike_driven"]
    assert spikformer["silent"]
    sdt = profile(zoo.create_model("sdt(embed_dim=192)").eval(), torch.rand(1, 3, 32, 32), rounds=1)["totals"]
    assert sdt["spike_driven"], sdt["not_spike_driven"]
    added = profile(zoo.create_model("sew_resnet18(connect=add)").eval(), torch.rand(1, 3, 32, 32), rounds=1)["totals"]
    assert not added["spike_driven"]
    anded = profile(zoo.create_model("sew_resnet18(connect=and)").eval(), torch.rand(1, 3, 32, 32), rounds=1)["totals"]
    assert all("head" in name for name in anded["not_spike_driven"])


def test_a_product_that_is_not_counted_is_told(caplog):
    class Scaled(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    with torch.no_grad(), OperationCounter(model := Scaled()) as counter:
        model(torch.rand(1, 2, 5, 4))
    (found,) = counter.layers.values()
    assert found.dense == 2 * 2 * 5 * 5 * 4  # two heads, two products
    assert not caplog.records
