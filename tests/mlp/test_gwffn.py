"""The MLP of SpikingResformer against its formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from registry import create
from st_utils.errors import UserError
from tests.attention.lively import lively


def spikes() -> torch.Tensor:
    return (torch.rand(3, 2, 8, 4, 5) < 0.5).double()


@pytest.mark.parametrize(("group_size", "groups"), [(8, 3), (64, 1), (24, 1), (1, 24)])
def test_gwffn(group_size, groups):
    layer = lively(create("mlp", f"gwffn(group_size={group_size})", dim=8, mlp_ratio=3, step=3))
    x = spikes()
    u = layer.up(x)
    (inner,) = layer.convs
    weight = inner.conv.weight
    assert weight.shape == (24, 24 // groups, 3, 3)
    mixed = F.conv2d(inner.node(u).flatten(0, 1), weight, padding=1, groups=groups)
    v = u + inner.norm(mixed).unflatten(0, (3, 2))
    down = layer.down
    expected = down.norm(down.conv(down.node(v).flatten(0, 1))).unflatten(0, (3, 2))
    torch.testing.assert_close(layer(x), expected)
    assert len(create("mlp", "gwffn(num_conv=2)", dim=8).convs) == 2


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gwffn(mlp_ratio=0.1)", "must be above 0"),
        ("gwffn(group_size=0)", "must be above 0"),
        ("gwffn(group_size=6)", "32 hidden channels do not divide into groups of group_size=6"),
    ],
)
def test_mistakes(spec, message):
    with pytest.raises(UserError, match=message):
        create("mlp", spec, dim=8)
