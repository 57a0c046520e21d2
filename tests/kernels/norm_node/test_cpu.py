"""Batch norm and neuron as one, against the two modules one after the other."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from registry import create, parse
from st_utils.analysis.firing import FiringRates
from st_utils.errors import UserError
from st_utils.kernels.common.layout import to_channels_last
from st_utils.kernels.node import cpu
from st_utils.kernels.node.op import arguments
from st_utils.layer import ConvNormNode
from st_utils.layer.norm_then_fire import fused_backend, norm_then_fire
from tests.kernels.node.test_triton_kernels import DEVICE, INTERPRETED

BACKENDS = [
    pytest.param("cpu", marks=pytest.mark.skipif(not cpu.available(), reason="no C++ compiler")),
    pytest.param("triton", marks=pytest.mark.skipif(DEVICE == "cpu" and not INTERPRETED, reason="no GPU")),
]
NODES = (
    "lif",
    "if(v_reset=none)",
    "plif(decay_input=false, v_reset=none, detach_reset=false)",
    "plif(v_reset=-0.2, surrogate=atan)",
)
SHAPES = {
    "cpu": ((4, 3, 5, 6, 7), (1, 2, 3, 4, 4), (7, 2, 2, 23, 31), (4, 2, 1, 40, 41)),
    "triton": ((4, 3, 5, 2, 3), (1, 2, 3, 1, 7)),
}


@pytest.fixture(params=BACKENDS)
def backend(request) -> str:
    return request.param


def pair(
    channels: int, node: str = "lif", training: bool = True, backend: str = "auto", **settings: object
) -> tuple[nn.Module, nn.Module]:
    norm = nn.BatchNorm2d(channels, **settings)
    if norm.affine:
        nn.init.uniform_(norm.weight, 0.5, 2)
        nn.init.uniform_(norm.bias, 0, 1)
    node = create("node", parse(node).replace(backend=backend))
    device = DEVICE if backend == "triton" else "cpu"
    return norm.train(training).to(device), node.to(device)


def one_by_one(norm: nn.Module, node: nn.Module, x: Tensor) -> Tensor:
    return node(norm(x.flatten(0, 1)).unflatten(0, x.shape[:2]))


def check(modules: tuple[nn.Module, nn.Module], x: Tensor, tolerance: float = 1e-4, steps: int | None = None) -> None:
    """Spikes, gradients and buffers of the pair as one, and of its modules in float32, the node in plain torch."""
    others, steps = copy.deepcopy(modules), steps or len(x)
    others[1].backend = "torch"
    x = x.to(modules[0].running_mean.device)
    mine, theirs = x.clone().requires_grad_(), x.float().requires_grad_()
    assert fused_backend(*modules, mine, steps) == modules[1].backend
    spikes = norm_then_fire(*modules, mine, steps)
    wanted = one_by_one(*others, theirs.expand(steps, *x.shape[1:]))
    assert spikes.dtype == x.dtype
    assert spikes.stride()[1:] == x.stride()[1:]
    assert torch.equal(spikes.float(), wanted)
    grad = torch.randn_like(wanted).to(x.dtype)
    spikes.backward(grad)
    wanted.backward(grad.float())
    torch.testing.assert_close(mine.grad.float(), theirs.grad, rtol=tolerance, atol=tolerance)
    for module, other in zip(modules, others, strict=True):
        for (name, got), want in zip(module.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(got.grad, want.grad, rtol=1e-3, atol=1e-3, msg=lambda m, n=name: f"{n}: {m}")
        for got, want in zip(module.buffers(), other.buffers(), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("node", NODES)
def test_the_pair(node, training, dtype, backend):
    torch.manual_seed(0)
    for shape in SHAPES[backend]:
        x = (torch.randn(shape) * 2 + 3).to(dtype)
        check(pair(shape[2], node, training, backend), x, 1e-4 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize("training", [True, False])
def test_channels_last(training, backend):
    torch.manual_seed(0)
    check(pair(5, NODES[2], training, backend), to_channels_last(torch.randn(4, 3, 5, 4, 5)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_one_step_for_all_of_a_static_image(training, last, backend):
    torch.manual_seed(0)
    x = torch.randn(1, 3, 5, 4, 5)
    check(pair(5, NODES[2], training, backend), to_channels_last(x) if last else x, steps=4)


def test_no_weights_and_another_momentum_and_eps(backend):
    check(pair(3, backend=backend, affine=False, momentum=0.3, eps=0.1), torch.randn(4, 2, 3, 5, 5))


def test_statistics_of_numbers_far_from_zero(backend):
    norm, node = pair(3, backend=backend, momentum=1.0)
    x = torch.randn(4, 2, 3, 9, 9).to(norm.weight.device) + 3000
    norm_then_fire(norm, node, x)
    by_channel = x.double().transpose(0, 2).flatten(1)
    torch.testing.assert_close(norm.running_var.double(), by_channel.var(1), rtol=1e-4, atol=0)
    torch.testing.assert_close(norm.running_mean.double(), by_channel.mean(1), rtol=1e-7, atol=0)


def test_the_batch_s_own_statistics_where_none_are_kept(backend):
    """track_running_stats=False: in eval mode too, and nothing is remembered."""
    for training in (True, False):
        norm, node = pair(3, "lif", training, backend, track_running_stats=False)
        x = torch.randn(4, 2, 3, 5, 5).to(norm.weight.device)
        assert fused_backend(norm, node, x, 4) == backend
        assert torch.equal(norm_then_fire(norm, node, x), one_by_one(norm, node, x))
        assert norm.running_mean is None and norm.num_batches_tracked is None


def test_eval_mode_remembers_nothing(backend):
    norm, node = pair(3, "lif", False, backend)
    before = [b.clone() for b in norm.buffers()]
    norm_then_fire(norm, node, torch.randn(4, 2, 3, 5, 5).to(norm.weight.device))
    assert all(torch.equal(b, old) for b, old in zip(norm.buffers(), before, strict=True))


def test_who_goes_one_by_one():
    """Whatever the fused pair does not compute, or does not show to a hook."""
    x = torch.randn(4, 2, 3, 5, 5)
    hooked, watched, momentless = pair(3), pair(3), pair(3, momentum=None)
    hooked[1].register_forward_hook(lambda *_: None)
    watched[0].register_full_backward_hook(lambda *_: None)
    sync = nn.SyncBatchNorm(3), create("node", "lif")
    plain = nn.BatchNorm2d(3), create("node", "lif(backend=torch)")
    for modules in (hooked, watched, momentless, sync, plain, (nn.BatchNorm2d(3), create("node", "klif"))):
        assert not fused_backend(*modules, x, 4)
    assert fused_backend(*pair(3), x, 4)
    assert not fused_backend(*pair(3), x.double(), 4)
    assert not fused_backend(*pair(3), x.transpose(3, 4), 4)
    assert not fused_backend(*pair(3), torch.randn(4, 2, 3, 2, 2), 4)
    for modules in (hooked, momentless, plain):
        assert torch.equal(norm_then_fire(*modules, x), one_by_one(*modules, x))


def test_one_number_a_channel_has_no_variance(backend):
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm_then_fire(*pair(3, backend=backend), torch.randn(1, 1, 3, 1, 1))


def test_firing_rates_are_counted():
    layer = ConvNormNode(2, 3, "lif", step=4, kernel=3)
    x, rates = torch.rand(4, 2, 2, 6, 6), FiringRates(layer)
    with rates.counting():
        spikes = layer(x)
    assert rates.mean() == pytest.approx(spikes.mean().item())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("steps", [4, 1])
def test_opcheck(training, steps, backend):
    norm, node = pair(3, "plif", training, backend)
    x = torch.randn(steps, 2, 3, 4, 4).to(norm.weight.device).requires_grad_()
    known = (None, None) if training else (norm.running_mean, norm.running_var)
    neuron = arguments(node.decay().detach().requires_grad_(), node.form())
    for values in (x, to_channels_last(x.detach()).requires_grad_()):
        settings = norm.weight, norm.bias, *known, 1e-5, *neuron, 4, backend
        torch.library.opcheck(torch.ops.zoo.norm_and_fire, (values, *settings))


def test_no_second_derivative(backend):
    norm, node = pair(3, "lif", backend=backend)
    x = torch.randn(4, 2, 3, 4, 4).to(norm.weight.device).requires_grad_()
    for spikes in (norm_then_fire(norm, node, x), node(x)):
        (grad,) = torch.autograd.grad(spikes.sum(), x, create_graph=True)
        with pytest.raises(UserError, match="no second derivative: build the node with backend=torch"):
            grad.sum().backward()


def test_autocast(backend):
    """Half precision in and out, statistics and their gradients in float32."""
    norm, node = pair(3, "plif", backend=backend)
    kind = norm.weight.device.type
    with torch.autocast(kind, torch.bfloat16):
        x = nn.Conv2d(2, 3, 3, padding=1).to(kind)(torch.randn(8, 2, 4, 4, device=kind)).unflatten(0, (4, 2))
        spikes = norm_then_fire(norm, node, x)
    assert x.dtype == spikes.dtype == torch.bfloat16
    spikes.sum().backward()
    assert norm.weight.grad.dtype == node.w.grad.dtype == norm.running_mean.dtype == torch.float32


def test_a_layer_compiles_without_a_break():
    torch.manual_seed(0)
    layer, x = ConvNormNode(2, 3, "plif", step=4, kernel=3), torch.randn(4, 2, 2, 6, 6)
    other = copy.deepcopy(layer)
    spikes = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    wanted = other(x)
    assert torch.equal(spikes, wanted)
    spikes.sum().backward()
    wanted.sum().backward()
    for (name, got), want in zip(layer.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad, msg=lambda m, n=name: f"{n}: {m}")
    assert layer.norm.num_batches_tracked == 1
    torch.testing.assert_close(layer.norm.running_var, other.norm.running_var)


def test_an_odd_last_batch_is_compiled_once_at_most():
    """The second size makes torch.compile take the batch as any number (of 4 and more, for its convolution)."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    layer = torch.compile(ConvNormNode(2, 3, "plif", step=4, kernel=3), fullgraph=True, backend=counter)
    counts = []
    for batch in (8, 5, 6, 7):
        layer(torch.randn(4, batch, 2, 6, 6)).sum().backward()
        counts.append(counter.frame_count)
    assert counts[0] == 1 and counts[1] == counts[-1] <= 2


def test_ddp(backend, tmp_path):
    """Its hooks see the fused pair's gradients, and sync_batchnorm takes the pair apart."""
    layer = ConvNormNode(2, 3, f"plif(backend={backend})", step=4, kernel=3)
    layer = layer.to(DEVICE if backend == "triton" else "cpu")
    other, x = copy.deepcopy(layer), torch.randn(4, 2, 2, 6, 6).to(layer.norm.weight.device)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(layer)
        seen = []
        parallel.register_comm_hook(None, lambda _, bucket: _doubled(bucket, seen))
        parallel(x).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    other(x).sum().backward()
    assert seen
    for got, want in zip(layer.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(got.grad, 2 * want.grad)
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(layer)
    assert fused_backend(synced.norm, synced.node, torch.randn(4, 2, 3, 6, 6, device=x.device), 4) is None


def _doubled(bucket: torch.distributed.GradBucket, seen: list) -> torch.futures.Future[Tensor]:
    """What the hook gives back is what the gradients become."""
    seen.append(bucket.index())
    buffer = bucket.buffer()
    done = torch.futures.Future(devices=[buffer.device] if buffer.is_cuda else None)
    done.set_result(buffer * 2)
    return done


def test_nothing_but_the_input_and_the_statistics_is_saved():
    kept, x = [], torch.randn(4, 2, 3, 8, 8).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        norm_then_fire(*pair(3), x)
    assert sum(t.numel() for t in kept) == x.numel() + 4 * 3
