"""Convolution and neuron as one kernel, against the two after one another: the same spikes, bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import zoo
from benchmarks.firing import settle
from registry import create
from st_utils.kernels.common.compiler import library
from st_utils.kernels.spike_conv import op as sparse_conv
from st_utils.kernels.spike_conv.conv2d import Conv2d
from st_utils.layer import ConvNormNode, conv_norm, conv_then_fire
from st_utils.layer.conv_then_fire import conv_then_fire as as_one

pytestmark = pytest.mark.skipif(library("spike_conv/cpu_fire") is None, reason="needs a C++ compiler")
NODES = [
    "lif", "lif(v_reset=none)", "lif(v_reset=-0.2, threshold=0.7)", "lif(decay_input=false)", "if", "plif(tau=1.7)",
    "lif(surrogate=nonzero_sign_log_abs)",
]  # fmt: skip


@pytest.fixture(autouse=True)
def always(monkeypatch):
    monkeypatch.setattr(sparse_conv, "LEAST", 0)


def spikes(steps, batch, channels, height, width, most=1):
    """`[T, B, C, H, W]`, channels last, denser row by row."""
    shape = (steps, batch, channels, height, width)
    kept = torch.rand(shape) < torch.linspace(0, 0.5, height)[:, None]
    return (torch.randint(1, most + 1, shape) * kept).float().movedim(2, -1).contiguous().movedim(-1, 2)


def one_by_one(conv, node, x):
    return node(conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]))


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_every_neuron_and_number_of_steps(node, steps):
    torch.manual_seed(0)
    conv, node, x = Conv2d(20, 37, 3, padding=1), create("node", node), spikes(steps, 3, 20, 7, 5, most=3)
    with torch.no_grad():
        conv.weight.mul_(5)
        found, wanted = as_one(conv, nn.Identity(), node, x), one_by_one(conv, node, x)
    assert torch.equal(found, wanted)
    assert 0 < wanted.mean() < 1
    assert found.stride() == wanted.stride()


@pytest.mark.parametrize(
    ("channels", "out", "kernel", "settings", "size"),
    [
        (384, 200, 1, {}, (8, 8)),
        (48, 96, 3, {"padding": 1, "stride": 2}, (9, 11)),
        (2, 16, 7, {"padding": 3, "bias": False}, (40, 33)),
        (64, 96, 3, {"groups": 2}, (6, 50)),
        (16, 1, 1, {}, (1, 1)),
        (16, 70, (1, 3), {"dilation": (1, 2)}, (1, 700)),
    ],
    ids=str,
)
def test_every_size(channels, out, kernel, settings, size):
    torch.manual_seed(0)
    conv, node, x = Conv2d(channels, out, kernel, **settings), create("node", "lif"), spikes(4, 2, channels, *size)
    with torch.no_grad():
        conv.weight.mul_(8)
        found, wanted = as_one(conv, nn.Identity(), node, x), one_by_one(conv, node, x)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    "spec", ["spikformer(embed_dim=64, depth=2, num_heads=4)", "qkformer(embed_dim=64, num_heads=2)"]
)
def test_a_folded_model_gives_the_same_logits_in_one_kernel_per_layer(monkeypatch, spec):
    torch.manual_seed(0)
    model = zoo.fold_norms(settle(zoo.create_model(spec, img_size=32), torch.rand(4, 3, 32, 32)))
    x, found = torch.rand(3, 3, 32, 32), []

    def spied(*args):
        found.append(as_one(*args))
        return found[-1]

    with torch.no_grad():
        monkeypatch.setattr(conv_norm, "conv_then_fire", lambda *_: None)
        expected = model(x)
        monkeypatch.setattr(conv_norm, "conv_then_fire", spied)
        assert torch.equal(model(x), expected)
    assert sum(one is not None for one in found) > 8


def folded():
    return zoo.fold_norms(nn.Sequential(ConvNormNode(16, 32, node="lif", step=4, kernel=3)))[0]


def test_modules_run_themselves_where_something_looks_at_them_or_needs_a_gradient(monkeypatch):
    torch.manual_seed(0)
    layer, x = folded(), spikes(4, 2, 16, 6, 6)
    calls = []
    monkeypatch.setattr(conv_then_fire, "convolve_and_fire", lambda *args: calls.append(1))
    with torch.no_grad():
        layer(x)
        assert len(calls) == 1
        for module in (layer.conv, layer.node):
            seen = []
            handle = module.register_forward_hook(lambda *_, seen=seen: seen.append(1))
            layer(x)
            handle.remove()
            assert seen
        layer(x.double().float()[:1].expand(4, -1, -1, -1, -1))  # a static image: one step is computed
    layer(x.clone().requires_grad_())
    layer(x)
    ConvNormNode(16, 32, node="lif", step=4, kernel=3).eval()(x)
    assert len(calls) == 1


def test_an_input_that_is_no_spikes_goes_through_the_modules():
    torch.manual_seed(0)
    layer, x = folded(), spikes(4, 2, 16, 6, 6) * 0.3
    with torch.no_grad():
        assert as_one(layer.conv, layer.norm, layer.node, x) is None
        assert torch.equal(layer(x), one_by_one(layer.conv, layer.node, x))


def test_counters_exporters_and_autocast_see_the_modules():
    torch.manual_seed(0)
    layer, x = folded(), spikes(4, 2, 16, 6, 6)
    with torch.no_grad():
        assert as_one(layer.conv, layer.norm, layer.node, x) is not None
        with FlopCounterMode(display=False) as counter:
            layer(x)
        assert counter.get_total_flops() == 2 * 8 * 36 * 16 * 32 * 9
        with torch.autocast("cpu", torch.bfloat16):
            assert as_one(layer.conv, layer.norm, layer.node, x) is None
        program = torch.export.export(layer, (x,))
        assert not [node for node in program.graph.nodes if "zoo" in str(node.target)]
        assert torch.equal(copy.deepcopy(layer)(x), layer(x))
