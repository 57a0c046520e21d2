"""The MLP of Spikformer and SDT against its formula."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from registry import create
from st_utils.errors import UserError
from tests.attention.lively import lively


@pytest.mark.parametrize(("spec", "kernel"), [("mlp", 1), ("mlp(kernel=3, bias=false)", 3)])
def test_the_formula(spec, kernel):
    layer = lively(create("mlp", spec, dim=8, mlp_ratio=3, step=3))
    x = (torch.rand(3, 2, 8, 4, 5) < 0.5).double()
    first, second = layer.fc1.conv, layer.fc2.conv
    assert first.weight.shape == (24, 8, kernel, kernel)
    u = F.conv2d(x.flatten(0, 1), first.weight, first.bias, padding=kernel // 2)
    spikes = layer.fc1.node(layer.fc1.norm(u).unflatten(0, (3, 2)))
    assert 0 < spikes.mean() < 1
    y = F.conv2d(spikes.flatten(0, 1), second.weight, second.bias, padding=kernel // 2)
    torch.testing.assert_close(layer(x), layer.fc2.norm(y).unflatten(0, (3, 2)))
    assert (first.bias is None) == (second.bias is None) == ("bias=false" in spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [("mlp(kernel=2)", "mlp: kernel must be odd, not 2"), ("mlp(mlp_ratio=0.1)", "leaves no hidden channel of dim=8")],
)
def test_mistakes(spec, message):
    with pytest.raises(UserError, match=message):
        create("mlp", spec, dim=8)
