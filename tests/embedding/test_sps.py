"""The forms of the patch splitting, `sps` and `sgl_tokenizer`, against their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from registry import create
from st_utils.errors import UserError
from tests.attention.lively import lively


def build(spec: str) -> torch.nn.Module:
    return lively(create("embedding", spec, in_channels=3, embed_dim=16, step=2))


def test_what_the_position_stage_gives():
    x = torch.rand(2, 1, 3, 16, 16).double()
    spiking, real, alone = (build(f"sps{args}") for args in ("", "(spiking=false)", "(spiking=false, shortcut=false)"))
    for other in (real, alone):
        other.load_state_dict(spiking.state_dict())
    current = alone(x)
    tokens = real(x) - current
    assert set(tokens.round(decimals=9).unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(spiking(x), tokens + spiking.position.node(current))


@pytest.mark.parametrize(("pooling", "side"), [("0011", 5), ("0000", 20), ("1111", 2)])
def test_sgl_tokenizer(pooling, side):
    layer = build(f'sgl_tokenizer(pooling="{pooling}")')
    assert [stage.conv.out_channels for stage in layer.stages] == [2, 4, 8, 16, 16]
    x = torch.rand(2, 1, 3, 20, 20).double()
    assert layer(x).shape == (2, 1, 16, side, side)
    y = x
    for stage, pools in zip(layer.stages, "0" + pooling, strict=True):
        u = stage.norm(stage.conv(y.flatten(0, 1)))
        u = F.max_pool2d(u, 3, 2, 1) if pools == "1" else u
        y = stage.node(u.unflatten(0, (2, 1)))
    assert torch.equal(layer(x), y)
    assert y.any()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sgl_tokenizer(embed_dim=5)", "embed_dim must be at least 6, not 5"),
        ('sgl_tokenizer(pooling="01")', "pooling must be four of 0 and 1"),
    ],
)
def test_mistakes(spec, message):
    with pytest.raises(UserError, match=message):
        build(spec)
