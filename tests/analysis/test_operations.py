"""Operations: by hand on small networks; at published sizes beside torch's, SpikingJelly's, fvcore's and thop's."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import thop
import torch
import torch.nn.functional as F
from fvcore.nn import FlopCountAnalysis
from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import zoo
from benchmarks.firing import settle
from st_utils.analysis.operations import OperationCounter, kind_of
from st_utils.analysis.profile import profile
from st_utils.kernels.spike_conv import op as sparse_conv
from st_utils.node.ilif import ILIF
from tests.analysis.firing_models import SIZE, lively

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
    monkeypatch.setattr(sparse_conv, "available", lambda: False)
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


class TestOtherCounters:
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


def count(model: nn.Module, *inputs: torch.Tensor) -> dict:
    with torch.no_grad(), OperationCounter(model) as counter:
        model(*inputs)
    return counter.layers


def one_spike(row: int, column: int, channels: int = 2, size: int = 4) -> torch.Tensor:
    x = torch.zeros(1, channels, size, size)
    x[0, 0, row, column] = 1
    return x


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
