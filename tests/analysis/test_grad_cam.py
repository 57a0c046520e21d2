"""Grad-CAM through the fused kernels against the library's own call on neurons in plain torch."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from st_utils.analysis.grad_cam import grad_cam, last_grid
from st_utils.errors import UserError
from st_utils.kernels.node.op import _available
from st_utils.node.base import IntegrateAndFire
from tests.attention.lively import lively
from zoo import create_model

BATCH, CLASSES = 2, [1, 0]
LAYERS = {
    "spikformer(embed_dim=16, depth=2, num_heads=2, attention=statten)": "blocks.1",
    "sdt(embed_dim=16, num_heads=2)": "blocks.1",
    "qkformer(embed_dim=16, depth=[1, 1], num_heads=2)": "blocks.2.0",
    "dta_snn18(width=8, step=4, depths=[0, 1, 1, 1])": "layers.tail",
    "csnn(channels=[4, 8])": "layers.3",
}


def inputs(frames: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(BATCH, *([frames] if frames else []), 1, 24, 20, generator=generator)


def model_of(spec: str) -> nn.Module:
    torch.manual_seed(0)
    return lively(create_model(spec, num_classes=3, in_channels=1, img_size=(24, 20))).float()


@pytest.fixture(scope="module")
def statten() -> nn.Module:
    return model_of(next(iter(LAYERS)))


def in_plain_torch(model: nn.Module) -> nn.Module:
    """A copy whose neurons run in plain torch."""
    copied = copy.deepcopy(model)
    nodes = [module for module in copied.modules() if isinstance(module, IntegrateAndFire)]
    assert nodes
    for node in nodes:
        node.backend = "torch"
    return copied


def own_call(model: nn.Module, layer: str, x: torch.Tensor, step: int) -> np.ndarray:
    """The library's map of one step, `[B, H, W]`, each scaled to 0 to 1."""
    cam = GradCAM(model, [model.get_submodule(layer)], reshape_transform=lambda output: output[step])
    return cam(x, [ClassifierOutputTarget(wanted) for wanted in CLASSES])


@pytest.mark.parametrize("spec", LAYERS)
def test_equal_to_the_library_on_plain_torch(spec):
    assert _available("cpu"), "without the fused kernels this compares plain torch with itself"
    model, x = model_of(spec), inputs()
    found = grad_cam(model, x, CLASSES)
    assert found.layer == LAYERS[spec]
    assert found.maps.shape == (4, BATCH, 24, 20)
    plain = in_plain_torch(model)
    torch.testing.assert_close(found.logits, plain(x).detach())
    low, top = found.maps.amin((2, 3)), found.maps.amax((2, 3))
    varied = (top - low) > 1e-3 * top  # the library stretches each map to 0 to 1, and in a constant one its rounding
    assert varied.double().mean() > 0.5, "the test is idle: the maps are constant"
    for step in range(4):
        peaks = top[step].where(top[step] > 0, torch.ones(())).view(-1, 1, 1)
        ours, theirs = scale_cam_image((found.maps[step] / peaks).numpy()), own_call(plain, found.layer, x, step)
        np.testing.assert_allclose(ours[varied[step]], theirs[varied[step]], atol=3e-5)


def test_by_hand(statten):
    """From the gradient that autograd gives at the layer; not normalised, so that steps compare."""
    x = inputs()
    seen = []
    handle = statten.blocks[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    logits = statten(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[0, 1] + logits[1, 0], seen)
    expected = (gradient.mean((3, 4), keepdim=True) * seen[0]).sum(2).relu()  # [T, B, H', W']
    found = grad_cam(statten, x, CLASSES, layer="blocks.0")
    assert found.grid == (6, 5)
    coarse = nn.functional.interpolate(expected, (24, 20), mode="bilinear")
    torch.testing.assert_close(found.maps, coarse.detach(), rtol=1e-4, atol=1e-7)
    assert expected.any()


def test_event_frames_and_each_class(statten):
    frames = inputs(frames=4)
    found = grad_cam(statten, frames, CLASSES)
    assert found.maps.shape == (4, BATCH, 24, 20)
    other = grad_cam(statten, frames, [0, 1])
    assert not torch.allclose(found.maps, other.maps)
    alone = grad_cam(statten, frames[1:], CLASSES[1:])
    torch.testing.assert_close(alone.maps[:, 0], found.maps[:, 1])


def test_a_layer_that_is_computed_once_for_all_steps(statten):
    convolution = next(name for name, module in statten.named_modules() if isinstance(module, nn.Conv2d))
    assert grad_cam(statten, inputs(), CLASSES, convolution).maps.shape == (1, BATCH, 24, 20)
    assert grad_cam(statten, inputs(frames=4), CLASSES, convolution).maps.shape == (4, BATCH, 24, 20)


def test_the_model_is_left_as_it_was(statten):
    statten.train()
    before = copy.deepcopy(statten.state_dict())
    grad_cam(statten, inputs(), CLASSES)
    assert all(module.training for module in statten.modules())
    statten.eval()
    assert all(torch.equal(before[name], value) for name, value in statten.state_dict().items())
    assert all(parameter.grad is None for parameter in statten.parameters())
    assert not any(module._forward_hooks for module in statten.modules())


def test_frozen_weights_have_maps(statten):
    frozen = copy.deepcopy(statten).requires_grad_(False)
    torch.testing.assert_close(grad_cam(frozen, inputs(), CLASSES).maps, grad_cam(statten, inputs(), CLASSES).maps)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("block.1", r"the model has no layer 'block.1'; did you mean 'blocks.1'"),
        ("head", r"layer 'head' returns \[4, 2, 3\], without rows and columns"),
        ("blocks.0.attention.branch.unused", r"layer 'blocks.0.attention.branch.unused' does not act on the logits"),
    ],
)
def test_layers_without_a_map(statten, layer, message):
    model = copy.deepcopy(statten)
    model.blocks[0].attention.branch.unused = nn.Conv2d(1, 1, 1)
    with pytest.raises(UserError, match=message):
        grad_cam(model, inputs(), CLASSES, layer)


def test_without_the_package(statten, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(UserError, match=r'^Grad-CAM needs the package grad-cam: pip install "\.\[pictures\]"$'):
        grad_cam(statten, inputs(), CLASSES)


def test_networks_of_another_kind():
    """BrainCog's have time and batch in one axis; timm's transformer has no time, and no grid after its stem."""
    network = create_model("braincog.SNN7_tiny", num_classes=3)
    images = torch.rand(BATCH, 3, 32, 32)
    found = grad_cam(network, images, CLASSES)
    assert found.maps.shape == (4, BATCH, 32, 32)
    transformer = create_model("vit(embed_dim=16, depth=1, num_heads=2)", num_classes=3)
    assert last_grid(transformer, images) == "vit.patch_embed.proj"
    assert grad_cam(transformer, images, CLASSES).maps.shape == (1, BATCH, 32, 32)
