"""The MLP of the experts mixture against its formula."""

from __future__ import annotations

import pytest
import torch

from registry import create
from st_utils.errors import UserError
from tests.attention.lively import lively


def spikes() -> torch.Tensor:
    return (torch.rand(3, 2, 8, 4, 5) < 0.5).double()


def test_emsp():
    layer, x = lively(create("mlp", "emsp", dim=8, mlp_ratio=3, step=3)), spikes()
    hidden = layer.fc1(x)
    gate = layer.depthwise(hidden[:, :, :12])
    assert layer.depthwise.conv.weight.shape == (12, 1, 3, 3)
    assert 0 < gate.mean() < 1
    torch.testing.assert_close(layer(x), layer.fc2(gate * hidden[:, :, 12:]))


@pytest.mark.parametrize("mlp_ratio", [0.125, 0.4])
def test_mistakes(mlp_ratio):
    with pytest.raises(UserError, match="must be an even number of channels"):
        create("mlp", f"emsp(mlp_ratio={mlp_ratio})", dim=8)
