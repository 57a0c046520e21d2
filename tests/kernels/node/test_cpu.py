"""The CPU kernels of `if`, `lif` and `plif` against the definition, the same nodes in plain torch."""

from __future__ import annotations

import copy
import itertools
import os
import shutil
import subprocess
import sys
import time

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from registry import create, names
from st_utils.errors import UserError
from st_utils.kernels.common import compiler
from st_utils.kernels.node import cpu, op
from st_utils.kernels.node.op import arguments
from st_utils.node.lif import LIF
from st_utils.node.surrogate import Sigmoid, Surrogate
from tests import golden_numbers as golden
from tests.node import test_definition

pytestmark = pytest.mark.skipif(not cpu.available(), reason="no C++ compiler")
STEPS = (1, 2, 4, 7, 16, 33)
TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
CHARGES = {
    "if": ("if", {}),
    "decay": ("lif", {"tau": 1.7}),
    "plain": ("lif", {"decay_input": False}),
    "learned": ("plif", {"tau": 2.3}),
    "learned plain": ("plif", {"decay_input": False}),
}
DETACHED = ({"detach_reset": True}, {"detach_reset": False}, {"detach_membrane": True})


@pytest.fixture(autouse=True)
def _nan_memory():
    """Fresh memory is NaN, so that an output that is not written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def pair(name: str, **settings: object) -> tuple[nn.Module, nn.Module]:
    return create("node", name, **settings), create("node", name, backend="torch", **settings)


def run(node: nn.Module, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Spikes, the input's gradient and the learned decay's."""
    x = x.detach().requires_grad_()
    node.zero_grad()
    spikes = node(x)
    spikes.backward(grad)
    return spikes.detach(), x.grad, next((p.grad for p in node.parameters()), None)


def check(nodes: tuple[nn.Module, nn.Module], x: Tensor) -> None:
    """Equal spikes, and gradients within rounding; it is the kernel that runs."""
    assert op.backend_for(x, nodes[0].form(), nodes[0].backend) == "cpu"
    grad, tolerance = torch.randn_like(x), TOLERANCE[x.dtype]
    (spikes, grad_x, grad_w), (wanted, wanted_x, wanted_w) = (run(node, x, grad) for node in nodes)
    assert spikes.dtype == grad_x.dtype == x.dtype
    assert torch.equal(spikes, wanted)
    torch.testing.assert_close(grad_x, wanted_x, rtol=tolerance, atol=tolerance)
    if wanted_w is not None:
        torch.testing.assert_close(grad_w, wanted_w, rtol=1e-4, atol=1e-3)


def currents(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))) * 1.5 + 0.5).to(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(
    "detach", [{"detach_reset": True}, {"detach_reset": False}, {"detach_membrane": True}], ids=str
)
@pytest.mark.parametrize("v_reset", [0.0, None, -0.3])
@pytest.mark.parametrize("charge", CHARGES)
def test_forms(charge, v_reset, detach, dtype):
    name, settings = CHARGES[charge]
    strict = f"sigmoid(strict={detach == {'detach_reset': True}})"
    nodes = pair(name, v_reset=v_reset, threshold=0.9, surrogate=strict, **detach, **settings)
    for steps, size in itertools.product(STEPS, (1, 17, 1031)):
        check(nodes, currents(steps, size, dtype=dtype))


@pytest.mark.parametrize("surrogate", names("surrogate"))
def test_surrogates(surrogate):
    for strict in ("true", "false"):
        check(pair("lif", surrogate=f"{surrogate}(strict={strict})"), currents(4, 3, 701))


def test_every_spike_at_the_threshold():
    """Potentials that land on the threshold itself, where one rounding more or less would show."""
    x = torch.arange(-8, 9).div(8).repeat(6, 500).flatten()[torch.randperm(6 * 8500)].view(6, 8500)
    for (name, settings), strict in itertools.product(CHARGES.values(), ("true", "false")):
        check(pair(name, surrogate=f"atan(strict={strict})", **settings), x)


def test_long_time():
    check(pair("lif", v_reset=None, detach_reset=False), currents(1500, 37))
    check(pair("plif"), currents(5000, 19))


def test_large():
    """Past the size from which results are written around the caches, with rows that start anywhere."""
    check(pair("lif", surrogate="atan"), currents(4, 1_050_001))


def test_numbers_that_are_none():
    """Infinite and undefined currents, and half precision's whole range, go as they go in the definition."""
    x = currents(4, 6)
    x[1] = torch.tensor([float("inf"), -float("inf"), float("nan"), 0.0, -0.0, 1e-45])
    fast, slow = pair("lif")
    assert torch.equal(fast(x), slow(x))
    for dtype in (torch.float16, torch.bfloat16):
        every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype).repeat(3, 1)
        assert torch.equal(fast(every), slow(every))
        check((fast, slow), every.nan_to_num(0, 0, 0).clamp(-100, 100))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_are_rounded_as_torch_does(dtype):
    """With straight_through and no leak the gradient is the incoming one: all values of the dtype come back."""
    fast = create("node", "if(v_reset=none, surrogate=straight_through)")
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    x = torch.zeros(1, 2**16, dtype=dtype, requires_grad=True)
    fast(x).backward(every[None])
    assert torch.equal(x.grad[0].nan_to_num(7.0), every.nan_to_num(7.0))


@pytest.mark.parametrize("layout", ["transposed", "time inside", "strided", "expanded", "channels_last", "empty"])
def test_layouts(layout):
    x = {
        "transposed": lambda: currents(4, 6, 5).transpose(1, 2),
        "time inside": lambda: currents(5, 6, 4).permute(2, 0, 1),
        "strided": lambda: currents(8, 10, 7)[::2, 1::3],
        "expanded": lambda: currents(4, 1, 7).expand(4, 5, 7),
        "channels_last": lambda: currents(8, 3, 5, 7).to(memory_format=torch.channels_last).unflatten(0, (4, 2)),
        "empty": lambda: currents(4, 0, 3),
    }[layout]()
    check(pair("plif"), x)
    assert (create("node", "lif")(x).stride() == x.stride()) == (layout not in ("time inside", "strided", "expanded"))


def test_threads_give_the_same_bits():
    node, x = create("node", "plif"), currents(4, 50_001)
    grad = torch.randn_like(x)
    alone = run(node, x, grad)
    torch.set_num_threads(3)
    try:
        together = run(node, x, grad)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize("case", test_definition.CASES, ids=lambda case: case["name"])
def test_golden(case):
    node, numbers = test_definition.node_of(case).float(), test_definition.NUMBERS["input"]
    x = torch.tensor(numbers["data"]).reshape(numbers["shape"]).requires_grad_()
    spikes = node(x)
    assert op.backend_for(x, node.form(), node.backend) == "cpu"
    assert spikes.flatten().tolist() == case["spikes"]
    golden.loss_of(spikes).backward()
    assert x.grad.flatten().tolist() == pytest.approx(case["grad_input"], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["lif", "plif"])
def test_opcheck(name):
    node = create("node", name)
    decay = node.decay().detach().requires_grad_() if name == "plif" else None
    for x in (currents(4, 5, 3), currents(4, 2, 3, 5).transpose(2, 3)):
        settings = *op.arguments(0.5 if decay is None else decay, node.form()), "cpu"
        torch.library.opcheck(torch.ops.zoo.integrate_and_fire, (x.requires_grad_(), *settings))
        fixed = torch.ones_like(x), x.detach(), *(s.detach() if isinstance(s, Tensor) else s for s in settings)
        torch.library.opcheck(torch.ops.zoo.integrate_and_fire_backward, fixed)


def test_compiles_without_a_break():
    layer, x = nn.Sequential(nn.Linear(6, 6), create("node", "plif")), currents(4, 3, 6)
    wanted = layer(x)
    wanted.sum().backward()
    grads = [p.grad.clone() for p in layer.parameters()]
    layer.zero_grad()
    spikes = torch.compile(layer, fullgraph=True)(x)
    assert torch.equal(spikes, wanted)
    spikes.sum().backward()
    for got, want in zip(layer.parameters(), grads, strict=True):
        torch.testing.assert_close(got.grad, want)


def test_an_odd_last_batch_is_compiled_once_at_most():
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    node = torch.compile(create("node", "plif"), fullgraph=True, backend=counter)
    counts = []
    for batch in (8, 5, 3, 7):
        node(currents(4, batch, 6)).sum().backward()
        counts.append(counter.frame_count)
    assert counts[0] == 1 and counts[1] == counts[-1] <= 2


def test_autocast_and_copies():
    layer = nn.Sequential(nn.Linear(6, 6), create("node", "plif"))
    with torch.autocast("cpu", torch.bfloat16):
        spikes = copy.deepcopy(layer)(currents(4, 3, 6))
        wanted = nn.Sequential(layer[0], create("node", "plif(backend=torch)"))(currents(4, 3, 6))
    assert spikes.dtype == torch.bfloat16
    assert torch.equal(spikes, wanted)
    spikes.sum().backward()


@pytest.mark.parametrize("name", ["lif", "psn(step=4)", "klif"])
def test_autocast_leaves_the_membrane_in_float32(name):
    """Also where the input is float32 and a neuron's arithmetic would be autocast's."""
    node, x = create("node", name), currents(4, 50)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(node(x), node(x)) and node(x).dtype == torch.float32
        inside = node(x)
    assert torch.equal(inside, node(x))


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_a_detached_membrane_is_braincog_s_mem_detach(backend):
    settings = {"surrogate": "sigmoid(alpha=2.0, strict=false)"}
    theirs = create("node", "braincog.LIFNode", mem_detach=True, threshold=1.0, tau=2.0, act_fun="SigmoidGrad")
    mine = create("node", "lif", detach_membrane=True, backend=backend, **settings)
    x = currents(6, 300)
    (spikes, grad, _), (wanted, wanted_grad, _) = (run(node, x, torch.ones_like(x)) for node in (mine, theirs))
    assert torch.equal(spikes, wanted)
    torch.testing.assert_close(grad, wanted_grad)


@pytest.mark.parametrize("name", ["lif", "plif"])
def test_eager_mode_gives_what_the_operator_gives(name):
    """The same spikes and gradients, bit for bit, without the dispatcher's way."""
    results = []
    for way in ("node", "operator"):
        node, x = create("node", name), currents(4, 50).requires_grad_()
        operands = x, *arguments(node.decay(), node.form()), "cpu"
        y = node(x) if way == "node" else torch.ops.zoo.integrate_and_fire(*operands)
        (y * torch.arange(50)).sum().backward()
        results.append([y, x.grad, *(p.grad for p in node.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_nothing_but_the_input_is_saved():
    kept = []
    x = currents(4, 100).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        create("node", "lif")(x)
    assert [t.data_ptr() for t in kept] == [x.data_ptr()]


def test_who_runs_in_plain_torch():
    """float64, a part of somebody's that changes the arithmetic, and whoever asks for it."""

    class Mine(LIF):
        def reset(self, h: Tensor, s: Tensor) -> Tensor:
            return h - h * s / 2

    class Flat(Sigmoid):
        def gradient(self, u: Tensor) -> Tensor:
            return torch.ones_like(u)

    other = create("node", "lif")
    other.surrogate = Flat()
    x = currents(4, 5).requires_grad_()
    for node in (Mine(), other, create("node", "lif(backend=torch)"), create("node", "lif").double()):
        y = node(x.double() if node.__class__ is LIF and node.backend == "auto" and node is not other else x)
        assert "zoo" not in y.grad_fn.name().lower()
    assert "zoo" in create("node", "lif")(x).grad_fn.name().lower()
    assert "zoo" in create("node", "lif(backend=cpu)")(x).grad_fn.name().lower()


def test_a_backend_of_another_device_is_refused():
    with pytest.raises(UserError, match="backend=cpu can't run a tensor on meta"):
        create("node", "lif(backend=cpu)")(torch.rand(4, 2, device="meta"))
    assert create("node", "lif")(torch.rand(4, 2, device="meta")).device.type == "meta"


class Smooth(Surrogate):
    """A sigmoid instead of the step, whose true derivative is the stand-in's."""

    def gradient(self, u: Tensor) -> Tensor:
        return 4 * torch.sigmoid(4 * u) * (1 - torch.sigmoid(4 * u))

    def spike(self, u: Tensor) -> Tensor:
        return torch.sigmoid(4 * u)


@pytest.mark.parametrize("v_reset", [0.0, None, -0.3])
@pytest.mark.parametrize("charge", CHARGES)
def test_the_definition_has_the_right_derivative(charge, v_reset):
    name, settings = CHARGES[charge]
    node = create("node", name, v_reset=v_reset, detach_reset=False, **settings).double()
    node.surrogate = Smooth()
    assert torch.autograd.gradcheck(node, (currents(4, 3).double().requires_grad_(),))


def test_without_a_compiler_plain_torch_takes_over(tmp_path):
    code = (
        "import torch, zoo; from registry import create; x = torch.rand(4, 9, requires_grad=True)\n"
        "for _ in range(3): y = create('node', 'lif')(x); y.sum().backward()\n"
        "assert 'zoo' not in y.grad_fn.name().lower(); assert 'Triton' not in y.grad_fn.name()"
    )
    env = os.environ | {"CXX": "/bin/false", "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("plain torch takes its place") == 1


def test_a_damaged_file_in_the_cache_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiler, "FLAGS", [*compiler.FLAGS, "-O0"])
    key = compiler._key("node/cpu", compiler._target(compiler.compiler(), compiler.EXTRAS[0]))
    file = compiler.cache_folder() / f"node-cpu-{key}.so"
    file.write_bytes(b"not a library")
    assert compiler._load("node/cpu")
    assert file.stat().st_size > 1000


def test_what_nobody_has_used_for_a_month_leaves_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compiler, "_compile", lambda command, source, path: shutil.copy(built, path))
    built = cpu._library()._name
    old, recent, other = (
        compiler.cache_folder() / name for name in ("node-cpu-old.so", "node-cpu-recent.so", "notes.txt")
    )
    for file, days in ((old, 31), (recent, 29), (other, 99)):
        file.touch()
        os.utime(file, (0, time.time() - days * 86400))
    assert compiler._load("node/cpu")
    assert not old.exists() and recent.exists() and other.exists()
    mine = next(file for file in compiler.cache_folder().glob("node-cpu-*.so") if file != recent)
    os.utime(mine, (0, time.time() - 40 * 86400))
    assert compiler._load("node/cpu")
    assert time.time() - mine.stat().st_mtime < 86400
