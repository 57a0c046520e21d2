"""QKFormer's patch embedding with deformed shortcut."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from registry import create
from st_utils.embedding.speds import DeformedShortcut
from st_utils.errors import UserError


def lively(part: nn.Module) -> nn.Module:
    """In float64 and eval mode, with norms that let the neurons fire."""
    for module in part.double().eval().modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 1, 2)
            nn.init.uniform_(module.bias, 0, 1.5)
    return part


@pytest.mark.parametrize("pools", [(False, True), (True, False)])
def test_a_downsampling_by_hand(pools):
    """The node is replaced by the identity: what is left is convolutions, norms, pooling and a sum."""
    torch.manual_seed(0)
    part = lively(DeformedShortcut((2, 4, 4), pools, "lif", 2))
    for layer in (*part.layers, part.shortcut):
        layer.node = nn.Identity()
    x = torch.randn(2, 3, 2, 7, 6, dtype=torch.float64)
    y = x.flatten(0, 1)
    for layer, pool in zip(part.layers, pools, strict=True):
        y = layer.norm(F.conv2d(y, layer.conv.weight, padding=1))
        y = F.max_pool2d(y, 3, 2, 1) if pool else y
    short = torch.einsum("oi,nihw->nohw", part.shortcut.conv.weight[:, :, 0, 0], x.flatten(0, 1)[:, :, ::2, ::2])
    torch.testing.assert_close(part(x), (y + part.shortcut.norm(short)).unflatten(0, (2, 3)))


def test_pooling_comes_before_the_neuron():
    """A maximum of currents, not of spikes: the pooled current fires in the steps in which it charges enough."""
    part = lively(DeformedShortcut((1, 1), (True,), "lif", 2))
    seen = []
    part.layers[0].node.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    part(torch.randn(2, 1, 1, 6, 6, dtype=torch.float64))
    assert seen[0].shape == (2, 1, 1, 3, 3)
    assert seen[0].unique().numel() > 2


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (13, 22)])
@pytest.mark.parametrize("stride", [1, 4, 8])
def test_speds_sizes_and_values(stride, size):
    torch.manual_seed(0)
    part = lively(create("embedding", f"speds(stride={stride})", in_channels=3, embed_dim=16, step=2, node="lif"))
    y = part(torch.rand(2, 1, 3, *size, dtype=torch.float64))
    assert y.shape == (2, 1, 16, *(-(-length // stride) for length in size))
    assert set(y.unique().tolist()) <= {0, 1, 2}


def test_mistakes():
    with pytest.raises(UserError, match="speds: embed_dim must be a multiple of 8, not 12"):
        create("embedding", "speds(stride=8)", in_channels=3, embed_dim=12, step=2, node="lif")
