"""The Triton kernels against the definition: on the GPU where there is one, else through Triton's interpreter."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

from registry import create
from st_utils.kernels import cuda
from st_utils.kernels.form import Form
from st_utils.node.lif import IF, PLIF

pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parents[2]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = pytest.mark.skipif(DEVICE == "cpu" and not INTERPRETED, reason="neither a GPU nor TRITON_INTERPRET=1")

AXES = {
    "charge": ("if", "decay", "plain", "learnt decay", "learnt plain"),
    "v_reset": (0.0, -0.25, None),
    "detach_reset": (True, False),
    "surrogate": ("sigmoid", "atan", "qgate", "gate", "rectangle"),
    "strict": (False, True),
    "dtype": (torch.float32, torch.float16, torch.bfloat16),
    "steps": (1, 2, 4, 7, 16, 33),
    "shape": ((1,), (77,), (3, 16), (2, 3, 1, 5)),
}
# Rounding of the gradient in its own dtype. Triton's interpreter truncates to bfloat16 instead of rounding.
ROUNDING = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}


class Case(NamedTuple):
    charge: str
    v_reset: float | None
    detach_reset: bool
    surrogate: str
    strict: bool
    dtype: torch.dtype
    steps: int
    shape: tuple[int, ...]

    @property
    def form(self) -> Form:
        charge, alpha = self.charge.split()[-1], 1.7
        return Form(charge, 0.75, self.v_reset, self.detach_reset, self.surrogate, alpha, self.strict)

    @property
    def decay(self) -> float | torch.Tensor:
        return torch.tensor(0.3, device=DEVICE) if "learnt" in self.charge else 0.3


def pairs() -> list[Case]:
    """Few cases in which every two settings of different axes meet: greedily, the most new pairs first."""
    places = [(axis, value) for axis, values in enumerate(AXES.values()) for value in values]
    open_pairs = {frozenset(p) for p in itertools.combinations(places, 2) if p[0][0] != p[1][0]}
    cases = []
    while open_pairs:
        seed = min(open_pairs, key=lambda pair: sorted(map(str, pair)))
        chosen = dict(seed)
        for axis, values in enumerate(AXES.values()):
            if axis not in chosen:
                gain = [sum(frozenset({(axis, v), c}) in open_pairs for c in chosen.items()) for v in values]
                best = [v for v, g in zip(values, gain, strict=True) if g == max(gain)]
                chosen[axis] = best[len(cases) % len(best)]
        cases.append(Case(*(chosen[axis] for axis in range(len(AXES)))))
        open_pairs -= {frozenset(p) for p in itertools.combinations(chosen.items(), 2)}
    return cases


class Given(PLIF):
    """The definition with a decay that is given."""

    def decay(self):
        return self.given


def definition(case: Case) -> tuple[nn.Module, torch.Tensor | float]:
    form, decay = case.form, case.decay
    cls = IF if form.charge == "if" else Given
    sharpness = "" if form.surrogate == "straight_through" else f"alpha={form.alpha}, "
    node = cls(
        threshold=form.threshold,
        v_reset=form.v_reset,
        detach_reset=form.detach_reset,
        surrogate=f"{form.surrogate}({sharpness}strict={form.strict})",
        backend="torch",
    )
    node.decay_input = form.charge == "decay"
    node.given = decay.requires_grad_() if isinstance(decay, torch.Tensor) else decay
    return node.to(DEVICE), node.given


def currents(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """Input currents, half of them on a grid that meets the threshold exactly, and dL/d spikes."""
    rng = torch.Generator().manual_seed(case.steps)
    shape = (case.steps, *case.shape)
    x = torch.randn(shape, generator=rng) + 0.5
    grid = (x * 4).round() / 4
    x = torch.where(torch.rand(shape, generator=rng) < 0.5, grid, x)
    return x.to(DEVICE, case.dtype), torch.randn(shape, generator=rng).to(DEVICE, case.dtype)


class FreshMemory:
    """torch for a kernel's host code, whose new memory is NaN and lies between guards that must stay NaN."""

    GUARD = 64

    def __init__(self):
        self.buffers = []

    def __getattr__(self, name):
        return getattr(torch, name)

    def empty(self, *size, dtype=None, device=None):
        count = torch.Size(size if isinstance(size[0], int) else size[0]).numel()
        buffer = torch.full((count + 2 * self.GUARD,), float("nan"), dtype=dtype, device=device)
        self.buffers.append(buffer)
        return buffer[self.GUARD : self.GUARD + count]

    def empty_like(self, x):
        return self.empty(x.numel(), dtype=x.dtype, device=x.device).as_strided(x.shape, x.stride())

    def check(self):
        for buffer in self.buffers:
            assert buffer[: self.GUARD].isnan().all() and buffer[-self.GUARD :].isnan().all(), "written outside"


@pytest.fixture
def memory(monkeypatch):
    fresh = FreshMemory()
    monkeypatch.setattr(cuda, "torch", fresh)
    yield fresh
    fresh.check()


# Small blocks on the CPU, so that tails and several blocks a program are met; on the GPU also the real ones.
BLOCKS = [{"block": 32}, {}] if DEVICE == "cuda" else [{"block": 32}]


def check(case: Case, x: torch.Tensor, grad: torch.Tensor, **settings) -> None:
    """Kernel against definition on one input."""
    node, decay = definition(case)
    inputs = x.clone().requires_grad_()
    expected = node(inputs)
    expected.backward(grad)
    learnt = decay.detach() if isinstance(decay, torch.Tensor) else decay
    spikes = cuda.forward(x, learnt, case.form, **settings)
    assert spikes.dtype == x.dtype and torch.equal(spikes, expected.detach())
    grad_x, grad_decay = cuda.backward(grad, x, learnt, case.form, **settings, programs=2)
    scale = inputs.grad.abs().nan_to_num(0, 0, 0).amax().clamp(min=1).item()
    tolerance = {"rtol": ROUNDING[x.dtype], "atol": 1e-5 * scale, "equal_nan": True}
    torch.testing.assert_close(grad_x, inputs.grad, **tolerance)
    if isinstance(decay, torch.Tensor):
        assert grad_decay.dtype == torch.float32 and grad_decay.shape == ()
        total = grad.float().abs().sum().item() * (1 + case.steps**0.5)
        torch.testing.assert_close(grad_decay, decay.grad, rtol=1e-5, atol=1e-6 * total, equal_nan=True)
    else:
        assert grad_decay is None


@pytest.mark.parametrize("settings", BLOCKS, ids=str)
@pytest.mark.parametrize("case", pairs(), ids=lambda c: "-".join(str(v).replace("torch.", "") for v in c))
def test_spikes_and_gradients(case, settings, memory):
    check(case, *currents(case), **settings)


@pytest.mark.parametrize("charge", ["decay", "learnt plain"])
@pytest.mark.parametrize("v_reset", [0.0, None])
@pytest.mark.parametrize("surrogate", AXES["surrogate"])
def test_infinities_and_nans_go_where_the_definition_has_them(charge, v_reset, surrogate, memory):
    case = Case(charge, v_reset, False, surrogate, False, torch.float32, 5, (40,))
    x, grad = currents(case)
    for t, i, value in ((0, 3, "inf"), (2, 5, "-inf"), (3, 7, "nan"), (3, 39, "inf"), (4, 38, "inf")):
        x[t, i] = float(value)
    check(case, x, grad, block=32, segment=3)


@pytest.mark.parametrize("surrogate", list(cuda.SURROGATES))
def test_every_surrogate(surrogate, memory):
    case = Case("decay", 0.0, False, surrogate, False, torch.float32, 3, (50,))
    check(case, *currents(case), block=64)


def test_memory_in_another_order_of_axes():
    """All of a time step before all of the next, the axes within it in any order: channels last."""
    case = Case("decay", 0.0, True, "sigmoid", False, torch.float32, 4, (2, 3, 2, 5))
    x, grad = (v.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3) for v in currents(case))
    check(case, x, grad, block=32)


@pytest.mark.parametrize("name", ["lif", "plif"])
def test_the_nodes_run_them(name):
    """Through the operator, on an input that is not contiguous."""
    x = torch.randn(3, 4, 5, 6, device=DEVICE).transpose(0, 2)
    results = []
    for backend in ("torch", "triton"):
        node = create("node", f"{name}(backend={backend})").to(DEVICE)
        leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
        spikes = node(leaf)
        results.append((spikes, *torch.autograd.grad((spikes * x).sum(), (leaf, *node.parameters()))))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("steps", [3, 4, 5, 9])
@pytest.mark.parametrize("charge", ["if", "learnt decay"])
def test_every_kind_of_last_segment(steps, charge, memory):
    """Segments that do and do not divide T, and more blocks than programs."""
    case = Case(charge, 0.0, False, "atan", False, torch.float32, steps, (77,))
    check(case, *currents(case), block=16, segment=2)
    check(case, *currents(case), block=16, segment=4)


@pytest.mark.parametrize("shape", [(4, 0, 3), (0, 5)])
def test_nothing_in_nothing_out(shape):
    case = Case("learnt decay", 0.0, True, "sigmoid", False, torch.float32, *[1, (1,)])
    x = torch.zeros(shape, device=DEVICE)
    assert cuda.forward(x, case.decay, case.form).shape == shape
    grad_x, grad_decay = cuda.backward(x, x, case.decay, case.form)
    assert grad_x.shape == shape and grad_decay == 0


def test_the_batch_size_is_no_part_of_what_is_compiled():
    form = Case("decay", 0.0, True, "sigmoid", False, torch.float32, 4, (1,)).form
    settings = [cuda._settings(torch.zeros(4, b, 3, 16), 0.5, form, 8, None)[1] for b in (1, 2, 7, 64)]
    assert all(s == settings[0] for s in settings) and settings[0]["ALIGNED"]
    odd = [cuda._settings(torch.zeros(4, b, 3, 5), 0.5, form, 8, None)[1] for b in (1, 16, 64)]
    assert all(s == odd[0] for s in odd) and not odd[0]["ALIGNED"]


def test_the_kernels_know_every_surrogate_that_has_a_class():
    for name in cuda.SURROGATES:
        assert create("surrogate", name).kernel in (name, None)
    form = Form("if", 1.0, 0.0, True, "sigmoid", 4.0, False)
    assert cuda.supports(torch.float16, form) and not cuda.supports(torch.float64, form)
    assert not cuda.supports(torch.float32, form._replace(surrogate="unheard_of"))


def test_loading_the_module_imports_no_triton():
    code = "import sys; import st_utils.kernels.cuda; assert 'triton' not in sys.modules"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def test_compiled_for_a_gpu_nothing_is_contracted_and_loads_are_wide():
    """What NVIDIA's assembler makes of the kernels, for which no GPU is needed."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "0"}
    code = [sys.executable, "-m", "tests.kernels.assembly"]
    done = subprocess.run(code, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    for variant in json.loads(done.stdout):
        assert not variant["fused"], f"fused multiply-adds: {variant}"
        assert variant["spilled"] <= 64, f"registers spilled: {variant}"
        scalars = variant["learnt"] + ("norm" in variant["kernel"]) * 6  # a learnt decay, a channel's numbers
        assert variant["narrow"] <= scalars, f"narrow loads: {variant}"


@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
class TestOnAGPU:
    def test_a_new_batch_size_compiles_nothing(self):
        from st_utils.kernels.triton_neuron import fire_backward, fire_forward

        case = Case("decay", 0.0, True, "sigmoid", False, torch.float32, 4, (1,))
        counts = []
        for batch in (4, 5, 1, 64, 63):
            x = torch.randn(4, batch, 3, 16, device=DEVICE)
            cuda.backward(cuda.forward(x, 0.5, case.form), x, 0.5, case.form)
            device = torch.cuda.current_device()
            counts.append([len(k.device_caches[device][0]) for k in (fire_forward, fire_backward)])
        assert all(c == counts[0] for c in counts), counts

    def test_past_two_to_the_31_elements(self):
        steps, n = 3, 2**30 - 13
        if torch.cuda.mem_get_info()[0] < 7 * steps * n:
            pytest.skip("needs 23 GB")
        form = Case("decay", 0.0, True, "gate", False, torch.float16, 1, (1,)).form
        x = torch.zeros(steps, n, device=DEVICE, dtype=torch.float16)
        x[:, -1000:] = torch.randn(steps, 1000, device=DEVICE) * 2
        spikes = cuda.forward(x, 0.5, form)
        assert not spikes[:, :-1000].any()
        tail = x[:, -1000:].contiguous()
        assert torch.equal(spikes[:, -1000:], cuda.forward(tail, 0.5, form))
        grad_x, _ = cuda.backward(x, x, 0.5, form)
        assert torch.equal(grad_x[:, -1000:], cuda.backward(tail, tail, 0.5, form)[0])

    def test_inference_allocates_nothing_but_spikes(self):
        form = Case("decay", 0.0, True, "sigmoid", False, torch.float32, 4, (1,)).form
        x = torch.randn(16, 1 << 16, device=DEVICE)
        cuda.forward(x, 0.5, form)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        cuda.forward(x, 0.5, form)
        assert torch.cuda.max_memory_allocated() - before <= x.nbytes + 512
