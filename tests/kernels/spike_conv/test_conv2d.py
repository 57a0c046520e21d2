"""Strided 1 x 1 convolutions: torch 2.15's backward pass of them writes past its memory, so ours never call it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import registry
import zoo
from st_utils.kernels.spike_conv.conv2d import Conv2d

ROOT = Path(__file__).parents[3]
ORDERS = (torch.contiguous_format, torch.channels_last)

# Each prints a line when its backward passes are done and equal to those of nn.Conv2d in float64.
CHANNELS = """
from tests.kernels.spike_conv.test_conv2d import compare
for channels in (*range(1, 34), 40, 48, 56, 63, 64):
    for stride in (2, 3):
        compare(channels, 16, stride)
        compare(16, channels, stride)
print("done")
"""
PARTS = """
from tests.kernels.spike_conv.test_conv2d import train_parts
train_parts()
print("done")
"""
MODELS = """
import torch, zoo
torch.manual_seed(0)
for width in (32, 48, 64):
    for side in (64, 128):
        model = zoo.create_model(f"qkformer(embed_dim={width}, num_heads=2, depth=3)", img_size=side, step=2)
        model(torch.rand(2, 3, side, side)).square().sum().backward()
for spec in ("sew_resnet18(width=4)", "sew_resnet18(width=12, node=braincog.BackEINode)", "transfer_resnet18(width=8)",
             "dta_snn18(width=8)", "braincog.resnet18", "braincog.sew_resnet18"):
    model = zoo.create_model(spec, in_channels=3, img_size=64, step=2)
    for memory in (torch.contiguous_format, torch.channels_last):
        for x in (torch.rand(2, 3, 64, 64).contiguous(memory_format=memory), torch.rand(2, 2, 3, 64, 64)):
            if x.dim() == 4 or not spec.startswith("braincog"):
                model(x).square().sum().backward()
print("done")
"""


def compare(channels: int, out: int, stride: int) -> None:
    """Output and gradients of ours in both orders of memory, and of torch's in float64 as written."""
    torch.manual_seed(channels)
    ours = Conv2d(channels, out, 1, stride)
    theirs = nn.Conv2d(channels, out, 1, stride).double()
    theirs.load_state_dict(ours.state_dict())
    values, results = torch.rand(2, channels, 64, 64), []
    side = -(-64 // stride)
    cotangent = torch.rand(2, out, side, side)
    for conv, order in ((theirs, ORDERS[0]), (ours, ORDERS[0]), (ours, ORDERS[1])):
        x = values.to(conv.weight.dtype).contiguous(memory_format=order).requires_grad_()
        grads = torch.autograd.grad(y := conv(x), (x, *conv.parameters()), cotangent.to(y.dtype))
        results.append((y, *grads))
    for result in results[1:]:
        for got, exact in zip(result, results[0], strict=True):
            largest = exact.abs().max().item()
            assert torch.allclose(got.double(), exact, rtol=1e-5, atol=1e-5 * largest), (channels, out, stride)


def train_parts() -> None:
    """Backward passes of every registered embedding that has strided 1 x 1 convolutions, built by itself."""
    torch.manual_seed(0)
    found = 0
    for name in (*registry.names("embedding"), "speds(stride=4)", "speds(stride=8)"):
        part = registry.create("embedding", name, in_channels=3, embed_dim=24, img_size=64, step=2)
        strided = [m for m in part.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) != m.stride]
        found += len(strided)
        for memory in ORDERS if strided else ():
            x = torch.rand(4, 3, 64, 64).contiguous(memory_format=memory).unflatten(0, (2, 2))
            part(x).square().sum().backward()
    assert found > 1


@pytest.mark.parametrize("code", [CHANNELS, PARTS, MODELS], ids=["channels", "parts", "models"])
def test_backward_passes_stay_within_their_memory(code):
    """With the C library's checks of every block that is freed, where it has them, and what is freed overwritten."""
    checked = {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165"}
    environment = {**os.environ, **checked, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.endswith("done\n")


def test_every_strided_pointwise_convolution_of_the_zoo_is_ours():
    """So that no model, through create_model or as a part, meets torch's; in a part of one's own it is Conv2d too."""
    found = 0
    for name in (*registry.names("model", families=False), "braincog.resnet18", "braincog.sew_resnet18"):
        if name == "vit":  # timm's, whose convolution has the patch as its stride
            continue
        for module in zoo.create_model(name).modules():
            if isinstance(module, nn.Conv2d):
                assert type(module) is Conv2d, (name, module)
                found += module.kernel_size == (1, 1) != module.stride
    assert found > 10


@pytest.mark.parametrize("order", ORDERS, ids=["as written", "channels last"])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular"])
def test_borders_groups_and_single_images(order, mode):
    torch.manual_seed(0)
    for groups, padding, stride in ((1, 1, 2), (4, 0, (2, 3)), (2, (1, 2), (1, 2)), (8, "valid", 3)):
        ours = Conv2d(8, 16, 1, stride, padding, groups=groups, padding_mode=mode)
        theirs = nn.Conv2d(8, 16, 1, stride, padding, groups=groups, padding_mode=mode)
        theirs.load_state_dict(ours.state_dict())
        x = torch.rand(2, 8, 9, 7)
        laid_out = x.contiguous(memory_format=order)
        assert torch.allclose(ours(laid_out), theirs(x), atol=1e-6)
        assert torch.allclose(ours(laid_out[0]), theirs(x[0]), atol=1e-6)
        with torch.autocast("cpu", torch.bfloat16):
            assert ours(laid_out).dtype == torch.bfloat16


def test_the_gradient_keeps_the_order_of_memory():
    conv = Conv2d(8, 16, 1, 2)
    x = torch.rand(2, 8, 6, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = conv(x)
    (grad,) = torch.autograd.grad(y, x, torch.rand_like(y))
    assert grad.is_contiguous(memory_format=torch.channels_last)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_compiled_without_a_break_and_never_as_a_strided_kernel():
    torch.manual_seed(0)
    conv, convolutions = Conv2d(8, 16, 1, 2), []

    def backend(graph, inputs):
        convolutions.extend(
            node for node in graph.graph.nodes if "conv" in str(node.target) and node.op != "placeholder"
        )
        return graph.forward

    compiled = torch.compile(conv, backend=backend, fullgraph=True)
    for order in ORDERS:
        x = torch.rand(2, 8, 9, 7).contiguous(memory_format=order).requires_grad_()
        results = [torch.autograd.grad(f(x).square().sum(), (x, conv.weight)) for f in (compiled, conv)]
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert len(convolutions) == len(ORDERS)
    strides = [node.kwargs.get("stride", (*node.args, 1)[3]) for node in convolutions]
    assert strides == [1, (1, 1)]  # torch's, and that of channels last, for spikes
