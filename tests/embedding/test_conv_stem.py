"""SpikingResformer's prologue against its formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from registry import create
from st_utils.errors import UserError
from tests.attention.lively import lively


def build(spec: str) -> torch.nn.Module:
    return lively(create("embedding", spec, in_channels=3, embed_dim=16, step=2))


@pytest.mark.parametrize(("spec", "side"), [("conv_stem", 20), ("conv_stem(kernel=7, stride=2, pool=true)", 5)])
def test_conv_stem(spec, side):
    layer = build(spec)
    x = torch.rand(2, 1, 3, 20, 20).double()
    u = layer.norm(layer.conv(x.flatten(0, 1)))
    expected = F.max_pool2d(u, 3, 2, 1) if "pool" in spec else u
    torch.testing.assert_close(layer(x), expected.unflatten(0, (2, 1)))
    assert expected.shape[-1] == side


def test_mistakes():
    with pytest.raises(UserError, match="kernel and stride must be at least 1, not 3 and 0"):
        build("conv_stem(stride=0)")
