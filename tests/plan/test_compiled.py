"""A model compiled for inference computes what its folded modules do: the same bits, in every call, by any threads."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import zoo
from registry import create
from st_utils.errors import UserError
from st_utils.kernels.plan import library
from st_utils.kernels.spike_conv import op
from st_utils.layer import ConvNorm, ConvNormNode
from st_utils.node.base import build_node
from st_utils.plan import compile_inference
from st_utils.plan.reduced import unit_of

MODELS = [
    "spikformer(depth=2, embed_dim=24, num_heads=2)",
    "spikformer(depth=1, embed_dim=136, num_heads=2, node=plif)",
    "spikformer(depth=1, embed_dim=64, num_heads=1, attention=statten)",
    "sdt(depth=1, embed_dim=64, num_heads=2, attention=statten)",
    "sdt(depth=1, embed_dim=64, num_heads=2)",
    "qkformer(depth=3, embed_dim=64, num_heads=4)",
    "metaspikformer(embed_dim=[8, 16, 24, 32], depth=1, num_heads=2)",
    "dta_snn18(width=8)",
    "transfer_vgg(width=4)",
    "csnn",
]


@pytest.fixture(autouse=True)
def sums_everywhere(monkeypatch):
    """Modules too sum spikes in convolutions of any size, in the same order: results are then equal bit for bit."""
    monkeypatch.setattr(op, "LEAST", 0)


def fires(model: nn.Module) -> nn.Module:
    """A model whose neurons fire: norms of random batches, with a bias; large weights where it has no norms."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        nn.init.constant_(norm.bias, 0.3)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and not norms:
            module.weight.data *= 3
    channels = next(m for m in model.modules() if isinstance(m, nn.Conv2d)).in_channels
    with torch.no_grad():
        for _ in range(2):
            model.train()(torch.rand(4, channels, 32, 32))
    return model.eval()


def same(model: nn.Module, *batches: Tensor) -> list[str]:
    """Both ways are equal on each batch; returns what torch's operators computed."""
    folded, compiled = zoo.fold_norms(model), compile_inference(model, batches[0])
    results = []
    with torch.no_grad():
        for x in (*batches, batches[0]):
            results.append(compiled(x))
            assert torch.equal(results[-1], folded(x))
    assert torch.equal(results[0], results[-1]) and not torch.equal(results[0], results[1]), "one that says nothing"
    return compiled.fallbacks


@pytest.mark.parametrize("spec", MODELS)
def test_models(spec):
    torch.manual_seed(0)
    channels = 2 if spec.startswith(("dta", "transfer")) else 3
    sizes = {"img_size": 32}
    model = fires(zoo.create_model(spec, in_channels=channels, num_classes=10, step=4, **sizes))
    fallbacks = same(model, torch.rand(3, channels, 32, 32), torch.rand(3, channels, 32, 32))
    if spec.startswith(("spikformer(depth=2", "sdt", "qkformer")):
        assert not [line for line in fallbacks if "embedding" not in line and "head" not in line and "mean" not in line]


def test_frames_of_events():
    torch.manual_seed(0)
    model = fires(
        zoo.create_model("spikformer(depth=1, embed_dim=32, num_heads=2)", img_size=32, in_channels=2, step=4)
    )
    frames = [torch.randint(0, 3, (3, 4, 2, 32, 32)).float() for _ in range(2)]
    same(model, *frames)


def test_published_size():
    """Spikformer-4-384 at 32 x 32: sums of 1,536 channels, three planes of counts, several pieces per layer."""
    torch.manual_seed(0)
    model = fires(zoo.create_model("spikformer", img_size=32, num_classes=10, step=4))
    assert len(same(model, torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32))) == 3


# -- layers, in whole numbers: plain torch's sums are then exact, too --------------------------------------------


class Net(nn.Module):
    """Layers over `[T, B, C, H, W]`, behind neurons that make spikes of the input."""

    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.first, self.layers = build_node("lif", 4), nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.first(x))


class Sums(nn.Module):
    """Counts of spikes: x + f(x) + f(x + f(x)) + ..., then what reads them."""

    def __init__(self, channels: int, times: int):
        super().__init__()
        self.branches = nn.ModuleList(ConvNormNode(channels, channels, node="lif", step=4) for _ in range(times))
        self.last = ConvNorm(channels, 24, kernel=3)

    def forward(self, x: Tensor) -> Tensor:
        for branch in self.branches:
            x = x + branch(x)
        return self.last(x)


def conv(channels: int, out: int, kernel: int = 3, stride: int = 1, **settings) -> ConvNormNode:
    return ConvNormNode(channels, out, node="lif", step=4, kernel=kernel, stride=stride, **settings)


class Attend(nn.Module):
    """An attention of spikes, without its own convolutions."""

    def __init__(self, spec: str, dim: int, heads: int):
        super().__init__()
        self.attention = create("attention", spec, dim=dim, num_heads=heads, step=4, node="lif")

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x)


NETS = {
    "few channels": (lambda: Net(conv(5, 40), conv(40, 7), conv(7, 33, kernel=5)), 5, 9),
    "channels that fill no word": (lambda: Net(conv(72, 130), conv(130, 200, kernel=1)), 72, 6),
    "strides": (
        lambda: Net(conv(20, 36, kernel=1, stride=2), conv(36, 20, stride=2), conv(20, 20, kernel=2, stride=2)), 20, 13
    ),
    "pooling": (
        lambda: Net(conv(20, 70, pool=True), conv(70, 20), nn.Flatten(0, 1), nn.MaxPool2d(2, ceil_mode=True)), 20, 9
    ),
    "counts": (lambda: Net(Sums(48, 5)), 48, 5),
    "counts past a byte": (lambda: Net(Sums(16, 9)), 16, 4),
    "attention": (lambda: Net(Attend("ssa", 96, 2)), 96, 9),
    "attention, many tokens": (lambda: Net(Attend("ssa", 36, 12)), 36, 13),
    "attention over steps": (lambda: Net(Attend("statten(chunk=2)", 130, 1)), 130, 4),
    "channel attention": (lambda: Net(Attend("sdsa", 60, 5)), 60, 6),
    "token attention": (lambda: Net(Attend("qk_token", 60, 5)), 60, 6),
    "token attention, wide": (lambda: Net(Attend("qk_token", 300, 2)), 300, 3),
}  # fmt: skip


def in_whole_numbers(net: nn.Module) -> nn.Module:
    """Convolutions of small whole numbers, norms that scale by one."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = torch.randint(-3, 4, module.weight.shape).float()
            if module.bias is not None:
                nn.init.ones_(module.bias)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.running_var, 1 - module.eps)
            module.bias.data = torch.randint(0, 3, module.bias.shape).float()
    return net.eval()


@pytest.mark.parametrize("precision", ["float32", "int16"])
@pytest.mark.parametrize("name", NETS)
def test_layers_are_plain_torchs(name, precision):
    """16 bits hold whole numbers, too."""
    torch.manual_seed(0)
    make, channels, size = NETS[name]
    net = in_whole_numbers(make())
    folded, batches = zoo.fold_norms(net), [torch.randn(4, 3, channels, size, size) * 4 for _ in range(2)]
    compiled = compile_inference(net, batches[0], precision)
    assert "conv" not in " ".join(compiled.fallbacks) and "matmul" not in " ".join(compiled.fallbacks)
    with torch.no_grad():
        for x in batches:
            with FlopCounterMode(display=False):  # where a counter looks on, modules use torch's own operators
                expected = folded(x)
            assert torch.equal(compiled(x), expected) and len(expected.unique()) > 1


def test_currents_of_16_bits_are_as_far_off_as_their_weights_are_rounded():
    torch.manual_seed(0)
    net, batches = Net(ConvNorm(72, 130, kernel=3)).eval(), [torch.randn(4, 3, 72, 9, 9) * 4 for _ in range(2)]
    exact, rounded = (compile_inference(net, batches[0], precision) for precision in ("float32", "int16"))
    with torch.no_grad():
        units = unit_of(exact(batches[0]).abs().amax((0, 1, 3, 4)))
        assert torch.equal(units.log2().round().exp2(), units), "powers of two"
        for x in batches:
            spikes = nn.functional.conv2d(net.first(x).flatten(0, 1), torch.ones(1, 72, 3, 3), padding=1)
            error = (rounded(x) - exact(x)).abs().flatten(0, 1)
            assert (error <= (spikes + 2) * units.view(-1, 1, 1) / 2).all() and error.max() > units.min() / 2


def test_twice_the_calibrated_range_fits():
    largest = torch.tensor([0.0, 1e-3, 0.49, 1.0, 1000.0])
    assert (2 * largest / unit_of(largest) <= 32767).all()
    assert (4.01 * largest[1:] / unit_of(largest[1:]) > 32767).all(), "no bit is given away"


def test_16_bits_and_32_of_a_trained_model_s_size(model):
    x = torch.rand(4, 3, 32, 32)
    exact, rounded = (compile_inference(model, x, precision)(x) for precision in ("float32", "int16"))
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.2 * exact.std().item())


def test_not_a_number_stays_in_pooling():
    class Pool(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.max_pool2d(x + x, 2)

    x = torch.randn(2, 3, 6, 6)
    x[0, 0, 3, 3] = torch.nan
    compiled = compile_inference(Pool(), x)
    assert torch.equal(compiled(x).isnan(), Pool()(x).isnan()) and compiled(x).isnan().sum() == 1


class AddsInPlace(nn.Module):
    """Residual sums as `x += f(x)`; with `again`, what x was is read after it was changed."""

    def __init__(self, again: bool):
        super().__init__()
        self.again, self.layers = again, nn.ModuleList(conv(24, 24) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            before = x
            x = layer(x)
            x += before
            y = x.flatten(3)
            x += 1.0
        return x + y.unflatten(3, (5, -1)) if self.again else x


def test_sums_in_place():
    torch.manual_seed(0)
    net, batches = Net(AddsInPlace(again=False)).eval(), [torch.randn(4, 3, 24, 5, 5) * 4 for _ in range(2)]
    compiled = compile_inference(net, batches[0])
    with torch.no_grad():
        for x in batches:
            torch.testing.assert_close(compiled(x), zoo.fold_norms(net)(x), rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="changes a tensor in place"):
        compile_inference(Net(AddsInPlace(again=True)).eval(), batches[0])


def test_a_network_that_changes_its_own_state_is_refused():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            calls = self.calls
            calls += 1
            return x * calls

    with pytest.raises(UserError, match="can't be compiled for inference"):
        compile_inference(Counts(), torch.rand(2, 3))


# -- calls -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return fires(
        zoo.create_model("spikformer(depth=1, embed_dim=48, num_heads=2)", img_size=32, num_classes=10, step=4)
    )


def test_any_number_of_threads_gives_the_same_bits(model):
    x, before = torch.rand(3, 3, 32, 32), torch.get_num_threads()
    compiled, found = compile_inference(model, x), []
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            found.append(compiled(x))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(y, found[0]) for y in found)


def test_an_image_does_not_depend_on_the_others(model):
    x = torch.rand(4, 3, 32, 32)
    whole, alone = compile_inference(model, x), compile_inference(model, x[:1])
    for image, logits in zip(x, whole(x), strict=True):
        torch.testing.assert_close(alone(image[None])[0], logits, rtol=0, atol=1e-6)  # the head's product is torch's


def test_results_of_two_calls_and_of_two_threads_do_not_mix(model):
    batches = [torch.rand(2, 3, 32, 32) for _ in range(2)]
    compiled = compile_inference(model, batches[0])
    wanted = [compiled(x) for x in batches]
    assert not torch.equal(*wanted)
    found: dict[int, list[Tensor]] = {0: [], 1: []}
    threads = [
        threading.Thread(target=lambda i=i: found[i].extend(compiled(batches[i]) for _ in range(20))) for i in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(y, wanted[i]) for i in (0, 1) for y in found[i])


def test_other_batches_run_in_the_folded_model(model):
    compiled, x = compile_inference(model, torch.rand(2, 3, 32, 32)), torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(compiled(x), zoo.fold_norms(model)(x))
    assert not compiled.train().training and not compiled(x).requires_grad


def test_a_batch_may_lie_otherwise_in_memory(model):
    compiled, x = compile_inference(model, torch.rand(2, 3, 32, 32)), torch.rand(2, 3, 32, 32)
    every_second = torch.stack([x, x], -1)[..., 0]
    for other in (x.contiguous(memory_format=torch.channels_last), every_second):
        assert other.stride() != x.stride() and torch.equal(compiled(other), compiled(x))


def test_a_counter_sees_the_whole_network_and_a_copy_is_refused_in_one_line(model):
    x = torch.rand(2, 3, 32, 32)
    compiled, folded = compile_inference(model, x), zoo.fold_norms(model)
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        compiled(x)
    with torch.no_grad(), FlopCounterMode(display=False) as expected:
        folded(x)
    assert counted.get_total_flops() == expected.get_total_flops() > 0
    with pytest.raises(UserError, match="can't be copied: compile the model again"):
        copy.deepcopy(compiled)


def test_weights_are_those_of_then(model):
    model, x = copy.deepcopy(model), torch.rand(2, 3, 32, 32)
    compiled = compile_inference(model, x)
    before = compiled(x)
    nn.init.zeros_(model.head.weight)
    assert torch.equal(compiled(x), before)


def test_memory_is_shared_by_signals_that_do_not_meet(model):
    shallow, deep = (
        compile_inference(
            zoo.create_model(f"spikformer(depth={n}, embed_dim=16, num_heads=1)"), torch.rand(1, 3, 32, 32)
        )
        for n in (1, 2)
    )
    assert deep.memory < 1.1 * shallow.memory


@pytest.mark.parametrize(
    ("net", "x", "told"),
    [
        (nn.Identity(), torch.rand(2, 3).half(), "for float32 on the CPU, the batch is torch.float16"),
        (nn.Sequential(nn.ReLU(inplace=True)), torch.rand(2, 3), "changes a tensor in place"),
    ],
)
def test_what_it_refuses_is_one_line(net, x, told):
    with pytest.raises(UserError, match=told) as caught:
        compile_inference(net, x)
    assert "\n" not in str(caught.value)


def test_python_that_can_not_be_followed_is_one_line():
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UserError, match="the network can't be compiled for inference") as caught:
        compile_inference(Branches(), torch.rand(2, 3))
    assert "\n" not in str(caught.value)


def test_without_a_compiler_it_says_so(model, monkeypatch):
    monkeypatch.setattr(library, "_library", lambda: None)
    with pytest.raises(UserError, match=r"there is no C\+\+ compiler"):
        compile_inference(model, torch.rand(2, 3, 32, 32))


@pytest.mark.parametrize(("chosen", "precision"), [("avx2", "int16"), ("portable", "float32")])
def test_each_instruction_set(chosen, precision):
    """Tests of layers once more, in a process that compiles for this set."""
    tests, names = f"{__file__}::test_layers_are_plain_torchs", "few or fill or pooling or many or wide"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", tests, "-k", f"{precision} and ({names})"]
    done = subprocess.run(
        words, env=os.environ | {"ZOO_CPU": chosen}, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "100%" in done.stdout
