"""Convolution of spikes against torch's, in float64 or on whole numbers, where both are exact."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from st_utils.kernels.common.compiler import library
from st_utils.kernels.spike_conv import op as sparse_conv
from st_utils.kernels.spike_conv.conv2d import Conv2d
from st_utils.kernels.spike_conv.definition import Geometry

pytestmark = pytest.mark.skipif(library("spike_conv/cpu_forward") is None, reason="needs a C++ compiler")
BOTH = ["_of_spikes", "_weight_of_spikes"]
KERNELS = [(1, 1), (3, 3), (5, 5), (1, 3), (3, 1)]


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """By the kernels, however few the numbers."""
    monkeypatch.setattr(sparse_conv, "LEAST", 0)


@pytest.fixture
def calls(monkeypatch):
    """The names of the kernels that computed a result."""
    names = []

    def spied(name, right):
        def call(*args):
            if (found := right(*args)) is not None:
                names.append(name)
            return found

        return call

    for name in BOTH:
        monkeypatch.setattr(sparse_conv, name, spied(name, getattr(sparse_conv, name)))
    return names


def whole(shape, low, high, density=1.0):
    """Whole numbers as float32, the given part of them not zeroed."""
    kept = torch.rand(shape) < density
    return torch.randint(low, high + 1, shape).float() * kept


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


def pair(in_channels, out_channels, kernel, bias=True, **settings):
    """The same convolution with whole weights, ours and torch's."""
    settings.setdefault("padding", tuple((k - 1) // 2 for k in kernel))
    convs = [kind(in_channels, out_channels, kernel, bias=bias, **settings) for kind in (Conv2d, nn.Conv2d)]
    with torch.no_grad():
        for mine, theirs in zip(*(conv.parameters() for conv in convs), strict=True):
            mine.copy_(whole(mine.shape, -3, 3))
            theirs.copy_(mine)
    return convs


def step(conv, x, grad):
    """Output and gradients of input and parameters."""
    x = x.clone().requires_grad_()
    y = conv(x)
    return y, *torch.autograd.grad(y, (x, *conv.parameters()), grad)


# Sizes around every border: of vectors, units of 16 bits, strings of 64 and 128 bits, strips of 64 channels, pieces of
# 512 pixels.
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize(
    ("shape", "out"),
    [
        ((2, 1, 1, 1), 1),
        ((3, 7, 5, 6), 13),
        ((2, 8, 4, 4), 64),
        ((5, 33, 9, 3), 96),
        ((40, 48, 8, 8), 129),
        ((2, 5, 70, 61), 33),
        ((1, 3, 3, 400), 20),
        ((1, 300, 6, 7), 100),
    ],
    ids=str,
)
@pytest.mark.parametrize("most", [1, 5, 255])
def test_whole_numbers_are_exact(calls, kernel, shape, out, most):
    """In every image by bits in some rows and by tables in others."""
    torch.manual_seed(0)
    mine, theirs = pair(shape[1], out, kernel, bias=shape[0] % 2 == 0)
    x = whole(shape, 1, most) * (torch.rand(shape) < torch.linspace(0, 0.5, shape[2])[:, None])
    grad = channels_last(whole((shape[0], out, *shape[2:]), -4, 4))
    for got, expected in zip(step(mine, channels_last(x), grad), step(theirs, x, grad), strict=True):
        assert torch.equal(got, expected)
    assert calls == BOTH


GEOMETRIES = {
    "stride": (48, 40, (3, 3), {"stride": 2, "padding": 1}),
    "strides": (20, 96, (3, 5), {"stride": (3, 2), "padding": (0, 4)}),
    "dilation": (16, 16, (3, 3), {"padding": (3, 2), "dilation": (3, 2)}),
    "groups": (96, 40, (3, 3), {"padding": 1, "groups": 2}),
    "many groups": (128, 256, (1, 1), {"groups": 8}),
    "no padding": (12, 64, (5, 5), {"padding": 0}),
    "even kernel": (64, 20, (2, 4), {"padding": (1, 2)}),
    "padding beyond the kernel": (16, 16, (3, 3), {"padding": 5}),
    "one channel": (1, 12, (5, 5), {"stride": (2, 1), "padding": 2, "dilation": (1, 2)}),
    "two channels": (2, 48, (7, 7), {"stride": 2, "padding": 3}),
    "same": (16, 16, (3, 5), {"padding": "same"}),
    "valid": (16, 16, (3, 5), {"padding": "valid"}),
    "kernel as large as the image": (16, 10, (9, 11), {"padding": 0}),
}


@pytest.mark.parametrize("case", GEOMETRIES)
@pytest.mark.parametrize(("density", "most"), [(0.05, 1), (0.5, 1), (0.2, 9)])
def test_every_geometry(calls, case, density, most):
    torch.manual_seed(0)
    channels, out, kernel, settings = GEOMETRIES[case]
    mine, theirs = pair(channels, out, kernel, **settings)
    x = channels_last(whole((3, channels, 9, 11), 1, most, density))
    grad = channels_last(whole(theirs(x).shape, -4, 4))
    for got, expected in zip(step(mine, x, grad), step(theirs, x, grad), strict=True):
        assert torch.equal(got, expected)
    assert calls == BOTH


@pytest.mark.parametrize("side", [1, 2])
def test_a_kernel_larger_than_its_image_is_torchs_error(calls, side):
    x = channels_last(torch.ones(2, 16, 4, side))
    with pytest.raises(RuntimeError, match="can't be greater than actual input size"):
        Conv2d(16, 16, 3)(x)
    assert Conv2d(16, 16, 3, padding=1)(x[:0]).shape == (0, 16, 4, side)


@pytest.mark.parametrize("part", [0.125, 0.25, 0.5])
def test_neurons_that_fire_in_parts_of_one(calls, part):
    torch.manual_seed(0)
    mine, theirs = pair(20, 37, (3, 3))
    x, grad = channels_last(whole((3, 20, 9, 7), 0, 8, 0.4) * part), channels_last(whole((3, 37, 9, 7), -4, 4))
    for got, expected in zip(step(mine, x, grad), step(theirs, x, grad), strict=True):
        assert torch.equal(got, expected)
    assert calls == BOTH


def test_equal_windows_have_equal_sums_wherever_they_are(calls):
    """To the bit, in an image of dense and sparse rows: max pooling takes the first of equal numbers."""
    torch.manual_seed(0)
    conv, x = Conv2d(140, 72, 3, padding=1), whole((1, 140, 16, 8), 0, 1, 0.05)
    x[..., 8:, :] = whole((1, 140, 8, 8), 0, 1, 0.7)
    x[..., 10:13, 2:5] = x[..., 2:5, 2:5]
    y = conv(channels_last(x))
    assert torch.equal(y[..., 11, 3], y[..., 3, 3])
    assert calls == BOTH[:1]


@pytest.mark.parametrize("number", [-1.0, 0.3, 0.0625, 256.0, 1e20, float("inf"), float("nan")])
def test_a_single_number_that_is_no_count_takes_torchs(calls, number):
    torch.manual_seed(0)
    mine, theirs = pair(20, 12, (3, 3))
    x, grad = channels_last(whole((3, 20, 9, 7), 0, 1, 0.3)), channels_last(whole((3, 12, 9, 7), -4, 4))
    x[2, 19, 8, 6] = number
    for got, expected in zip(step(mine, x, grad), step(theirs, x, grad), strict=True):
        assert torch.equal(got.nan_to_num(7.0), expected.nan_to_num(7.0))
    assert not calls


@pytest.mark.parametrize("density", [0.03, 0.15, 0.3])
def test_an_image_does_not_depend_on_its_neighbours(calls, density):
    """To the bit, also where these are denser, so that they are summed in another way."""
    torch.manual_seed(0)
    conv = Conv2d(140, 72, 3, padding=1)
    image = whole((1, 140, 8, 8), 0, 2, density)
    others = whole((4, 140, 8, 8), 0, 3, 0.6)
    alone = conv(channels_last(image))
    among = conv(channels_last(torch.cat([others[:2], image, others[2:]])))
    assert torch.equal(alone[0], among[2])
    assert calls == BOTH[:1] * 2


@pytest.mark.parametrize("density", [0.0, 0.02, 0.4, 1.0])
def test_within_rounding_of_float64(calls, density):
    torch.manual_seed(0)
    conv = Conv2d(70, 50, 3, padding=1)
    x = channels_last(whole((8, 70, 10, 11), 1, 3, density))
    grad = channels_last(torch.randn(8, 50, 10, 11))
    got = step(conv, x, grad)
    exact = step(conv.double(), x.double(), grad.double())
    for mine, theirs in zip(got, exact, strict=True):
        largest = max(1.0, theirs.detach().abs().max().item())
        assert torch.allclose(mine.double(), theirs, rtol=1e-5, atol=2e-6 * largest)
    assert calls == BOTH


@pytest.mark.parametrize("weight_last", [False, True])
def test_any_order_of_the_weight_and_of_the_gradient(weight_last):
    torch.manual_seed(0)
    mine, theirs = pair(20, 40, (3, 3))
    if weight_last:
        mine.to(memory_format=torch.channels_last)
    x, grad = channels_last(whole((4, 20, 6, 6), 0, 1)), whole((4, 40, 6, 6), -4, 4)
    for given in (grad, channels_last(grad), grad[:1].expand(4, -1, -1, -1)):
        for got, expected in zip(step(mine, x, given), step(theirs, x, given), strict=True):
            assert torch.equal(got, expected)
    assert step(mine, x, grad)[2].stride() == mine.weight.stride()


def test_the_same_bits_whatever_the_threads():
    torch.manual_seed(0)
    conv = Conv2d(48, 96, 3, padding=1)
    x, grad = channels_last(whole((9, 48, 12, 12), 0, 3, 0.3)), channels_last(torch.randn(9, 96, 12, 12))
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            y, _, *grads = step(conv, x, grad)
            results.append((y, grads[0]))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


OTHERS = {
    "as written": (nn.Conv2d(16, 16, 3, padding=1), lambda x: x.contiguous()),
    "float64": (nn.Conv2d(16, 16, 3, padding=1).double(), lambda x: x.double()),
    "groups of few channels": (nn.Conv2d(16, 16, 3, padding=1, groups=4), channels_last),
    "same, an even kernel": (nn.Conv2d(16, 16, 2, padding="same"), channels_last),
    "reflected": (nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"), channels_last),
    "one image": (nn.Conv2d(16, 16, 3, padding=1), lambda x: x[0]),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_it_does_not_do_is_torchs(calls, case):
    torch.manual_seed(0)
    theirs, order = OTHERS[case]
    kept = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    mine = Conv2d(*(getattr(theirs, name) for name in kept), padding_mode=theirs.padding_mode)
    mine.to(theirs.weight.dtype).load_state_dict(theirs.state_dict())
    x = order(whole((2, 16, 8, 8), 0, 1, 0.2))
    assert torch.equal(mine(x), theirs(x))
    assert not calls


def test_autocast_is_torchs(calls):
    conv = Conv2d(16, 16, 3, padding=1)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(channels_last(whole((2, 16, 8, 8), 0, 1))).dtype == torch.bfloat16
    assert not calls


@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)], ids=str)
def test_second_derivatives(kernel):
    torch.manual_seed(0)
    results = []
    x0, grad = channels_last(whole((2, 8, 5, 5), 0, 2)), whole((2, 12, 5, 5), -2, 2)
    for conv in pair(8, 12, kernel):
        x = x0.clone().requires_grad_()
        first = torch.autograd.grad((conv(x) * grad).pow(2).sum(), (x, conv.weight), create_graph=True)
        norm = sum(g.pow(2).sum() for g in first)
        results.append(torch.autograd.grad(norm, (x, conv.weight, conv.bias)))
    for got, expected in zip(*results, strict=True):
        assert torch.allclose(got, expected, rtol=1e-5)


def test_a_layer_may_change_the_output_in_place(calls):
    torch.manual_seed(0)
    mine, theirs = pair(8, 12, (3, 3))
    x, grad = channels_last(whole((2, 8, 5, 5), 0, 2)), whole((2, 12, 5, 5), -2, 2)
    results = [step(nn.Sequential(conv, nn.ReLU(inplace=True)), x, grad) for conv in (mine, theirs)]
    for got, expected in zip(*results, strict=True):
        assert torch.equal(got, expected)
    assert calls == BOTH


def test_torch_func_takes_torchs(calls):
    torch.manual_seed(0)
    mine, theirs = pair(8, 12, (3, 3))
    x = channels_last(whole((2, 8, 5, 5), 0, 2))
    results = [torch.func.jacrev(lambda x, conv=conv: conv(x).sum((2, 3)))(x) for conv in (mine, theirs)]
    assert torch.equal(*results)
    assert not calls


def test_the_operators_keep_what_torch_asks_of_them():
    torch.manual_seed(0)
    x, weight = channels_last(whole((2, 8, 5, 5), 0, 1)), torch.randn(12, 8, 3, 3)
    leaves = x.clone().requires_grad_(), weight.requires_grad_(), torch.randn(12, requires_grad=True)
    geometry = Geometry(stride=[2, 1], padding=[1, 2], dilation=[1, 2])
    torch.library.opcheck(torch.ops.zoo.sparse_conv.default, (*leaves, *geometry))
    grad = channels_last(torch.randn(2, 12, 3, 5)).requires_grad_()
    torch.library.opcheck(torch.ops.zoo.sparse_conv_weight.default, (grad, *leaves[:2], *geometry))


def test_compiled_without_a_break_and_for_any_batch(calls):
    torch.manual_seed(0)
    mine, theirs = pair(16, 32, (3, 3))
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(mine, backend=counter, fullgraph=True, dynamic=True)
    for batch in (4, 3, 7):
        x, grad = channels_last(whole((batch, 16, 6, 6), 0, 1, 0.3)), channels_last(whole((batch, 32, 6, 6), -4, 4))
        x = x.requires_grad_()
        got = torch.autograd.grad(compiled(x), (x, mine.weight), grad)
        expected = torch.autograd.grad(theirs(x), (x, theirs.weight), grad)
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert counter.frame_count == 1
    assert len(calls) == 6


@pytest.mark.parametrize("spec", ["spikformer(embed_dim=64, depth=2, num_heads=4)", "sew_resnet18(width=16)"])
def test_every_convolution_of_a_training_step(calls, spec):
    """What goes into each convolution of a model, and what comes out, against float64."""
    torch.manual_seed(0)
    model = zoo.create_model(spec, img_size=16)
    seen = []
    for conv in model.modules():
        if isinstance(conv, Conv2d):
            conv.register_forward_hook(lambda conv, given, y: seen.append((conv, given[0].detach(), y.detach())))
    F.cross_entropy(model(torch.rand(4, 3, 16, 16)), torch.tensor([1, 2, 3, 4])).backward()
    assert len(calls) > len(seen) > 10
    for conv, x, y in seen:
        bias = None if conv.bias is None else conv.bias.double()
        exact = F.conv2d(x.double(), conv.weight.double(), bias, conv.stride, conv.padding)
        assert torch.allclose(y.double(), exact, rtol=1e-5, atol=1e-5)
        assert conv.weight.grad.isfinite().all()


INSTRUCTION_SETS = """
import torch
from torch import nn
from st_utils.kernels.spike_conv import op
from tests.kernels.spike_conv.test_op import GEOMETRIES, channels_last, pair, step, whole
op.LEAST = 0
torch.manual_seed(0)
for channels, out, kernel, settings in (*GEOMETRIES.values(), (300, 129, (1, 1), {}), (140, 72, (3, 3), {})):
    for density, most in ((0.05, 1), (0.5, 1), (0.2, 9)):
        mine, theirs = pair(channels, out, kernel, **settings)
        x = channels_last(whole((3, channels, 9, 11), 1, most, density))
        grad = channels_last(whole(theirs(x).shape, -4, 4))
        for got, expected in zip(step(mine, x, grad), step(theirs, x, grad), strict=True):
            assert torch.equal(got, expected), (channels, out, kernel, settings, density, most)
print(op.forward_library()._name)
"""


@pytest.mark.parametrize("chosen", ["native", "avx2", "portable"])
def test_each_instruction_set_is_exact(chosen):
    if chosen == "avx2" and platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("not an x86 processor")
    environment = os.environ | {"ZOO_CPU": chosen, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", INSTRUCTION_SETS], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (done.stdout.strip() == sparse_conv.forward_library()._name) == (chosen == "native")
