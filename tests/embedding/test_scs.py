"""Spikformer V2's convolutional stem."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from registry import create
from st_utils.errors import UserError
from tests.attention.lively import lively


@pytest.mark.parametrize(("pooling", "grid"), [("1111", (2, 3)), ("0011", (9, 13)), ("0000", (37, 52))])
def test_scs_halves_by_convolution(pooling, grid):
    part = lively(create("embedding", f'scs(pooling="{pooling}")', in_channels=3, embed_dim=16, step=2, img_size=32))
    y = part(torch.rand(2, 1, 3, 37, 52, dtype=torch.float64))
    assert y.shape == (2, 1, 16, *grid)
    assert torch.equal(y, y.round())
    assert not any(isinstance(module, nn.MaxPool2d) for module in part.modules())
    halving = [m.kernel_size for m in part.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert halving == [(2, 2)] * pooling.count("1")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("scs", "embed_dim must be a multiple of 8, not 12"),
        ('scs(pooling="01", embed_dim=16)', "pooling must be four of 0 and 1"),
        ("scs(embed_dim=16, img_size=[64, 15])", "64 x 15 pixels are too few to halve 4 times: set pooling"),
    ],
)
def test_mistakes(spec, message):
    with pytest.raises(UserError, match=message):
        create("embedding", spec, in_channels=3, embed_dim=12, step=2, node="lif")
