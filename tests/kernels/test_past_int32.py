"""The Triton kernels past 2^31 elements, a program at a time, in files of which only what is written exists."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from registry import create
from st_utils.kernels.norm_node.form import Norm
from tests.kernels.node.test_triton_kernels import DEVICE, INTERPRETED

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(DEVICE != "cpu" or not INTERPRETED, reason="is for Triton's interpreter")
THRESHOLD, ALPHA, TAIL, STEPS = 1.0, 4.0, 40, 3
NEURON = {"CHARGE": "decay", "LEARNED": False, "SOFT": False, "STRICT": False}
CUT = {"EVEN": False, "ALIGNED": False, "STEPS": 2}
BACK = {"DETACH": "nothing", "SURROGATE": "sigmoid", "SEGMENTED": True}


@pytest.fixture
def sparse(tmp_path) -> Callable[..., Tensor]:
    """Makes zeros `[steps, n]` that take no memory before they are written."""
    torch.manual_seed(0)
    number = itertools.count()

    def make(steps: int, n: int, dtype: torch.dtype = torch.float16) -> Tensor:
        file = tmp_path / str(next(number))
        return torch.from_file(str(file), shared=True, size=steps * n, dtype=dtype).view(steps, n)

    return make


@pytest.fixture
def last_program(monkeypatch) -> Callable[..., None]:
    """Makes a launch run the last program of a grid that is too large to run, on its tensors' own memory."""
    from triton.runtime.interpreter import GridExecutor
    from triton.runtime.interpreter import interpreter_builder as builder

    monkeypatch.setattr(GridExecutor, "_restore_args_dev", lambda *_: None)
    set_dim, set_index = builder.set_grid_dim, builder.set_grid_idx

    def of(x: int, y: int = 1) -> None:
        monkeypatch.setattr(builder, "set_grid_dim", lambda *_: set_dim(x, y, 1))
        monkeypatch.setattr(builder, "set_grid_idx", lambda *_: set_index(x - 1, y - 1, 0))

    return of


def tail(x: Tensor) -> Tensor:
    """The last elements of every step."""
    return x[:, -TAIL:]


def wanted(x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Spikes and the input's gradient by the definition."""
    x = x.float().requires_grad_()
    spikes = create("node", "lif", detach_reset=False, backend="torch")(x)
    return spikes.detach().half(), torch.autograd.grad(spikes, x, grad.float())[0]


def test_neuron(sparse, last_program):
    from st_utils.kernels.node.triton_kernels import fire_backward, fire_forward

    n, block = 2**31 + 41, 64
    x, grad, spikes, grad_x = (sparse(STEPS, n) for _ in range(4))
    scratch = sparse(1, n + block, torch.float32)
    tail(x)[:], tail(grad)[:] = torch.randn(STEPS, TAIL) * 2, torch.randn(STEPS, TAIL)
    expected = wanted(tail(x), tail(grad))
    numbers = {"decay": 0.5, "T": STEPS, "n": n, "threshold": THRESHOLD, "reset": 0.0}
    last_program(-(-n // block))
    fire_forward[(1,)](x=x, spikes=spikes, **numbers, **NEURON, **CUT, BLOCK=block)
    assert torch.equal(tail(spikes), expected[0])
    fire_backward[(1,)](
        grad=grad, x=x, grad_x=grad_x, grad_decay=x, scratch=scratch, **numbers, alpha=ALPHA, beta=0.0,
        **NEURON, **BACK, **CUT, BLOCK=block,
    )  # fmt: skip
    torch.testing.assert_close(tail(grad_x).float(), expected[1], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("last", [False, True], ids=["as written", "channels last"])
def test_norm_and_neuron(last, sparse, last_program):
    """With known statistics, in one pass back; then the batch's own."""
    from st_utils.kernels.norm_node.triton_kernels import moments, norm_fire_backward, norm_fire_forward

    channels, width, row_block, column_block = 40, 40 if last else 1024 + TAIL, 4, 64
    rows = (2**31 // width // channels + 1) * channels
    n, grid = rows * width, (-(-rows // row_block), -(-width // column_block))
    place = (grid[0] - 1) * width if last else rows * grid[1] - 1  # of the last program's first sum or last
    x, grad, spikes, grad_x = (sparse(STEPS, n) for _ in range(4))
    sums, products, marks = (sparse(1, n, torch.float32) for _ in range(3))
    tail(x)[:], tail(grad)[:] = torch.randn(STEPS, TAIL) * 2, torch.randn(STEPS, TAIL)
    weight, bias = torch.full((channels,), 2.0), torch.linspace(0, 1, channels)
    expected = wanted(tail(x).float() * 2.0 + (bias if last else bias[-1]), tail(grad))
    tile = CUT | {"LAST": last, "STATIC": False, "EXACT": False, "ROWS": row_block, "COLUMNS": column_block}
    norm = Norm(weight, bias, mean=torch.zeros(channels), var=torch.ones(channels), eps=0.0)._asdict()
    numbers = {"decay": 0.5, "T": STEPS, "C": channels, "W": width, "n": n, "threshold": THRESHOLD, "reset": 0.0} | norm
    last_program(*grid)
    norm_fire_forward[(1,)](x=x, spikes=spikes, marks=x, **numbers, **NEURON, **tile, MARK=False)
    assert torch.equal(tail(spikes), expected[0])
    norm_fire_forward[(1,)](x=x, spikes=x, marks=marks, **numbers, **NEURON, **tile, MARK=True)
    norm_fire_backward[(1,)](
        grad=grad, x=x, grad_x=grad_x, marks=marks, sums=sums, products=products, decays=x, total_dy=bias,
        total_dyz=bias, **numbers, alpha=ALPHA, beta=0.0, count=1.0, REDUCE=True, WRITE=True, **NEURON, **BACK, **tile,
    )  # fmt: skip
    torch.testing.assert_close(tail(grad_x).float(), expected[1] * 2, rtol=2e-3, atol=2e-3)
    moments[(1,)](x=x, means=marks, squares=products, T=STEPS, W=width, n=n, **tile)
    seen = [v[:, 0] if last else v for v in (expected[1], tail(x).float())]
    # All else in the tile is zeros, and so are the gradients there.
    mean = seen[1].double().sum().item() / seen[1].numel() / (row_block if last else 1)
    assert marks[0, place].item() == pytest.approx(mean, abs=1e-6)
    assert sums[0, place].item() == pytest.approx(seen[0].double().sum().item(), abs=1e-5)
