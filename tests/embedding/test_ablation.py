"""The embeddings of the STEP benchmark's ablation against their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from registry import create
from st_utils.errors import UserError
from tests.attention.lively import lively


def build(spec: str, img_size: int | tuple[int, int] = (8, 12)) -> torch.nn.Module:
    return lively(create("embedding", spec, in_channels=3, embed_dim=16, img_size=img_size, step=2))


def test_vit_embed():
    layer, x = build("vit_embed(patch=4)"), torch.rand(2, 3, 3, 8, 12).double() * 2
    torch.nn.init.normal_(layer.position)
    u = F.conv2d(x.flatten(0, 1), layer.conv.weight, layer.conv.bias, stride=4).unflatten(0, (2, 3))
    spikes = layer.node(u)
    assert spikes.shape == (2, 3, 16, 2, 3)
    assert 0 < spikes.mean() < 1
    torch.testing.assert_close(layer(x), spikes + layer.position)
    assert layer.no_weight_decay() == {"position"}


def test_conv2_embed():
    layer, x = build("conv2_embed"), torch.rand(2, 3, 3, 8, 12).double() * 2
    y = x
    for stage, width in zip(layer.stages, (4, 16), strict=True):
        u = F.conv2d(y.flatten(0, 1), stage.conv.weight, padding=1)
        spikes = stage.node(stage.norm(u).unflatten(0, (2, 3)))
        assert spikes.shape[2] == width
        y = F.max_pool2d(spikes.flatten(0, 1), 3, 2, 1).unflatten(0, (2, 3))
    torch.testing.assert_close(layer(x), y + layer.position(y))
    assert set(layer(x).unique().tolist()) == {0, 1, 2}


def test_mistakes():
    with pytest.raises(UserError, match="an image of 8 x 12 does not divide into patches of 5"):
        build("vit_embed(patch=5)")
    with pytest.raises(UserError, match=r"vit_embed was built for images of \(8, 8\), not \(8, 12\)"):
        build("vit_embed", img_size=8)(torch.zeros(2, 1, 3, 8, 12).double())
    with pytest.raises(UserError, match="embed_dim must be a multiple of 4, not 6"):
        create("embedding", "conv2_embed", in_channels=3, embed_dim=6)
