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

from registry import Spec, create, entry, names, parse
from st_utils.kernels.node import cuda
from st_utils.kernels.node.form import Form
from st_utils.node.lif import IF, PLIF

pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parents[3]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = pytest.mark.skipif(DEVICE == "cpu" and not INTERPRETED, reason="neither a GPU nor TRITON_INTERPRET=1")

AXES = {
    "charge": ("if", "decay", "plain", "learned decay", "learned plain"),
    "v_reset": (0.0, -0.25, None),
    "detach": ("reset", "nothing", "membrane"),
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
    detach: str
    surrogate: str
    strict: bool
    dtype: torch.dtype
    steps: int
    shape: tuple[int, ...]

    @property
    def form(self) -> Form:
        return definition(self).form()._replace(decay=0.3)

    @property
    def decay(self) -> torch.Tensor | None:
        return torch.tensor(0.3, device=DEVICE) if "learned" in self.charge else None


def pairs() -> list[Case]:
    """36 cases instead of 32,400: any two settings of different axes meet. Greedily, the most new pairs first."""
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

    given: torch.Tensor | float = 0.3

    def decay(self):
        return self.given


def sharpness(surrogate: str) -> dict[str, float]:
    """Another alpha than the default, for surrogates that have one."""
    return {"alpha": 1.7} if "alpha" in entry("surrogate", parse(surrogate)).params else {}


def definition(case: Case) -> Given:
    node = (IF if case.charge == "if" else Given)(
        threshold=0.75,
        v_reset=case.v_reset,
        detach_reset=case.detach != "nothing",
        detach_membrane=case.detach == "membrane",
        surrogate=parse(case.surrogate).replace(strict=case.strict),
        backend="torch",
    )
    node.decay_input = case.charge.endswith("decay")
    return node.to(DEVICE)


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
        shape = torch.Size(size if isinstance(size[0], int) else size[0])
        count = shape.numel()
        buffer = torch.full((count + 2 * self.GUARD,), float("nan"), dtype=dtype, device=device)
        self.buffers.append(buffer)
        return buffer[self.GUARD : self.GUARD + count].view(shape)

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
BLOCKS = [{"block": 64}, {}] if DEVICE == "cuda" else [{"block": 64}]


def check(case: Case, x: torch.Tensor, grad: torch.Tensor, **settings) -> None:
    """Kernel against definition on one input."""
    node, decay = definition(case), case.decay
    if decay is not None:
        node.given = decay.clone().requires_grad_()
    inputs = x.clone().requires_grad_()
    expected = node(inputs)
    expected.backward(grad)
    spikes = cuda.forward(x, decay, case.form, **settings)
    assert spikes.dtype == x.dtype and torch.equal(spikes, expected.detach())
    grad_x, grad_decay = cuda.backward(grad, x, decay, case.form, **settings, programs=2)
    scale = inputs.grad.abs().nan_to_num(0, 0, 0).amax().clamp(min=1).item()
    tolerance = {"rtol": ROUNDING[x.dtype], "atol": 1e-5 * scale, "equal_nan": True}
    torch.testing.assert_close(grad_x, inputs.grad, **tolerance)
    if decay is not None:
        assert grad_decay.dtype == torch.float32 and grad_decay.shape == ()
        total = grad.float().abs().sum().item() * (1 + case.steps**0.5)
        torch.testing.assert_close(grad_decay, node.given.grad, rtol=1e-5, atol=1e-6 * total, equal_nan=True)
    else:
        assert grad_decay is None


@pytest.mark.parametrize("settings", BLOCKS, ids=str)
@pytest.mark.parametrize("case", pairs(), ids=lambda c: "-".join(str(v).replace("torch.", "") for v in c))
def test_spikes_and_gradients(case, settings, memory):
    check(case, *currents(case), **settings)


NOT_FINITE = [("decay", None, surrogate) for surrogate in names("surrogate")]


@pytest.mark.parametrize(("charge", "v_reset", "surrogate"), [*NOT_FINITE, ("learned plain", 0.0, "atan")])
def test_infinities_and_nans_go_where_the_definition_has_them(charge, v_reset, surrogate, memory):
    case = Case(charge, v_reset, "nothing", surrogate, False, torch.float32, 5, (40,))
    x, grad = currents(case)
    for t, i, value in ((0, 3, "inf"), (2, 5, "-inf"), (3, 7, "nan"), (3, 39, "inf"), (4, 38, "inf")):
        x[t, i] = float(value)
    check(case, x, grad, block=32, segment=3)


@pytest.mark.parametrize("surrogate", names("surrogate"))
def test_every_surrogate(surrogate, memory):
    for numbers in ({}, sharpness(surrogate)):
        case = Case("decay", 0.0, "nothing", str(Spec(surrogate, numbers)), False, torch.float32, 3, (50,))
        check(case, *currents(case), block=64)


def test_memory_in_another_order_of_axes():
    """All of a time step before all of the next, the axes within it in any order: channels last."""
    case = Case("decay", 0.0, "reset", "sigmoid", False, torch.float32, 4, (2, 3, 2, 5))
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
@pytest.mark.parametrize("charge", ["if", "learned decay"])
def test_every_kind_of_last_segment(steps, charge, memory):
    """Segments that do and do not divide T, and more blocks than programs."""
    case = Case(charge, 0.0, "nothing", "atan", False, torch.float32, steps, (40,))
    check(case, *currents(case), block=16, segment=2)
    check(case, *currents(case), block=16, segment=4)


@pytest.mark.parametrize("shape", [(4, 0, 3), (0, 5)])
def test_nothing_in_nothing_out(shape):
    case = Case("learned decay", 0.0, "reset", "sigmoid", False, torch.float32, *[1, (1,)])
    x = torch.zeros(shape, device=DEVICE)
    assert cuda.forward(x, case.decay, case.form).shape == shape
    grad_x, grad_decay = cuda.backward(x, x, case.decay, case.form)
    assert grad_x.shape == shape and grad_decay == 0


def test_the_batch_size_is_no_part_of_what_is_compiled():
    form = Case("decay", 0.0, "reset", "sigmoid", False, torch.float32, 4, (1,)).form
    settings = [cuda.constants_of(torch.zeros(4, b, 3, 16), None, form, segment=8, block=None) for b in (1, 2, 7, 64)]
    assert all(s == settings[0] for s in settings) and settings[0]["ALIGNED"]
    odd = [cuda.constants_of(torch.zeros(4, b, 3, 5), None, form, segment=8, block=None) for b in (1, 16, 64)]
    assert all(s == odd[0] for s in odd) and not odd[0]["ALIGNED"]


def test_what_the_kernels_know():
    form = Case("if", 0.0, "reset", "sigmoid", False, torch.float32, 4, (1,)).form
    assert cuda.supports(torch.float16, form) and not cuda.supports(torch.float64, form)
    assert not cuda.supports(torch.float32, form._replace(surrogate="unheard_of"))


def test_loading_the_module_imports_no_triton():
    code = "import sys; import st_utils.kernels.node.cuda; assert 'triton' not in sys.modules"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def test_compiled_for_a_gpu_nothing_is_contracted_and_loads_are_wide():
    """What NVIDIA's assembler makes of the kernels, and how many, for which no GPU is needed."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "0"}
    code = [sys.executable, "-m", "tests.kernels.assembly"]
    done = subprocess.run(code, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    found = json.loads(done.stdout)
    for variant in found["kernels"]:
        assert not variant["fused"], f"fused multiply-adds: {variant}"
        assert variant["spilled"] <= 64, f"registers spilled: {variant}"
        scalars = variant["learned"] + ("norm" in variant["kernel"]) * 6  # a learned decay, a channel's numbers
        assert variant["narrow"] <= scalars, f"narrow loads: {variant}"
    # For two orders of memory, times two passes of norm and neuron, whatever the batch.
    two = dict.fromkeys(("moments", "combine"), 2) | dict.fromkeys(("norm_fire_forward", "norm_fire_backward"), 4)
    assert found["compilations"] == {"fire_forward": 1, "fire_backward": 1} | two
