"""What only a GPU shows: real sizes, memory, streams, graphs, compilation. The other tests here run on it as well."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from registry import create
from st_utils.kernels.common.layout import to_channels_last
from st_utils.kernels.node import cuda
from st_utils.kernels.node.form import Form
from st_utils.layer import ConvNormNode
from st_utils.layer.norm_then_fire import fused_backend

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
FORM = Form(
    charge="decay", threshold=1.0, v_reset=0.0, detach="reset", surrogate="sigmoid", alpha=4.0, decay=0.5
)  # fmt: skip
# The last GPU of the machine: with several, a kernel that takes the current one instead fails.
DEVICE = torch.device("cuda", max(torch.cuda.device_count() - 1, 0))


def both_ways(module: nn.Module, x: Tensor, grad: Tensor) -> list[Tensor]:
    """Spikes, then the gradients of x and of the parameters."""
    x = x.detach().requires_grad_()
    spikes = module(x)
    return [spikes.detach(), *torch.autograd.grad(spikes, (x, *module.parameters()), grad)]


def alike(found: list[Tensor], wanted: list[Tensor]) -> None:
    """Equal but for a few potentials of millions, which round to the threshold's other side, and what follows."""
    assert (found[0] != wanted[0]).float().mean() < 1e-4
    for ours, theirs in zip(found[1:], wanted[1:], strict=True):
        assert (ours - theirs).norm() <= 2e-2 * theirs.norm()


@pytest.fixture(autouse=True)
def _exact_convolutions(monkeypatch):
    """In float32, not TF32: two algorithms for the same convolution then agree to rounding."""
    monkeypatch.setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee")


def test_a_new_batch_size_compiles_nothing():
    from st_utils.kernels.node.triton_kernels import fire_backward, fire_forward

    counts = []
    for batch in (4, 5, 1, 64, 63):
        x = torch.randn(4, batch, 3, 16, device=DEVICE)
        cuda.backward(cuda.forward(x, None, FORM), x, None, FORM)
        counts.append([len(k.device_caches[DEVICE.index][0]) for k in (fire_forward, fire_backward)])
    assert counts[0] != [0, 0] and all(c == counts[0] for c in counts), counts


def test_past_two_to_the_31_elements():
    steps, n = 3, 2**30 - 13
    if torch.cuda.mem_get_info(DEVICE)[0] < 8 * steps * n:
        pytest.skip("needs 26 GB")
    x = torch.zeros(steps, n, device=DEVICE, dtype=torch.float16)
    x[:, -1000:] = torch.randn(steps, 1000, device=DEVICE) * 2
    spikes, tail = cuda.forward(x, None, FORM), x[:, -1000:].contiguous()
    assert spikes.count_nonzero() == spikes[:, -1000:].count_nonzero() > 0
    assert torch.equal(spikes[:, -1000:], cuda.forward(tail, None, FORM))
    del spikes
    grad_x, _ = cuda.backward(x, x, None, FORM)
    assert torch.equal(grad_x[:, -1000:], cuda.backward(tail, tail, None, FORM)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("steps", [1, 4, 7, 33])
def test_millions_of_neurons(steps, dtype):
    """At the sizes that the blocks are made for: many programs, many turns each."""
    x = (torch.randn(steps, 1_000_003, device=DEVICE) + 0.5).to(dtype)
    grad = torch.randn_like(x)
    found, wanted = (
        both_ways(create("node", "plif", detach_reset=False, backend=backend).to(DEVICE), x, grad)
        for backend in ("triton", "torch")
    )
    assert torch.equal(found[0], wanted[0])
    half = 0 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-5 + half, atol=1e-5)
    torch.testing.assert_close(found[2], wanted[2], rtol=1e-3, atol=1e-3 * x.numel() ** 0.5)


def test_inference_allocates_nothing_but_spikes():
    x = torch.randn(16, 1 << 16, device=DEVICE)
    cuda.forward(x, None, FORM)
    torch.cuda.reset_peak_memory_stats(DEVICE)
    before = torch.cuda.memory_allocated(DEVICE)
    spikes = cuda.forward(x, None, FORM)
    assert torch.cuda.max_memory_allocated(DEVICE) - before <= spikes.nbytes + 512


def layer() -> ConvNormNode:
    torch.manual_seed(0)
    return ConvNormNode(16, 48, "plif", step=4, kernel=3).to(DEVICE)


def test_the_same_bits_at_every_run():
    x, grad = torch.randn(4, 8, 48, 32, 32, device=DEVICE), torch.randn(4, 8, 48, 32, 32, device=DEVICE)
    node = create("node", "plif").to(DEVICE)
    first, second = both_ways(node, x, grad), both_ways(node, x, grad)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("last", [False, True], ids=["as written", "channels last"])
@pytest.mark.parametrize("training", [True, False])
def test_a_layer_at_the_size_of_a_model(training, last):
    """Against cuDNN's batch norm and plain torch."""
    fused = layer().train(training)
    plain = copy.deepcopy(fused)
    plain.node.backend = "torch"
    x = torch.randn(4, 32, 16, 32, 32, device=DEVICE)
    x = to_channels_last(x) if last else x
    y = fused.conv(x.flatten(0, 1)).unflatten(0, (4, 32))
    assert fused_backend(fused.norm, fused.node, y, 4) == "triton"
    grad = torch.randn(4, 32, 48, 32, 32, device=DEVICE)
    found, wanted = both_ways(fused, x, grad), both_ways(plain, x, grad)
    alike(found, wanted)
    for ours, theirs in zip(fused.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_kernels_run_in_the_current_stream():
    """Behind work that takes long in that stream, on its result."""
    module, x = layer(), torch.randn(4, 8, 16, 32, 32, device=DEVICE)
    wanted = module.eval()(x)
    slow, stream = torch.zeros_like(x), torch.cuda.Stream(DEVICE)
    torch.cuda.synchronize(DEVICE)
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)
        slow.copy_(x)
        spikes = module(slow)
    stream.synchronize()
    assert torch.equal(spikes, wanted)


def test_a_graph_records_both_ways():
    """A training step, captured and replayed on another input."""
    module, x = layer(), torch.randn(4, 8, 16, 32, 32, device=DEVICE)
    other = torch.randn_like(x)
    grad = torch.randn(4, 8, 48, 32, 32, device=DEVICE)
    with torch.cuda.device(DEVICE):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                both_ways(module, x, grad)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = both_ways(module, x, grad)
        x.copy_(other)
        graph.replay()
        torch.cuda.synchronize()
    alike(found, both_ways(copy.deepcopy(module), other, grad))


def test_compiles_without_a_break():
    module, x = layer(), torch.randn(4, 8, 16, 32, 32, device=DEVICE)
    grad = torch.randn(4, 8, 48, 32, 32, device=DEVICE)
    wanted = both_ways(copy.deepcopy(module), x, grad)
    compiled = torch.compile(module, fullgraph=True)
    x = x.requires_grad_()
    spikes = compiled(x)
    found = [spikes.detach(), *torch.autograd.grad(spikes, (x, *module.parameters()), grad)]
    alike(found, wanted)
