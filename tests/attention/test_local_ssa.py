"""Attention in windows: each window by itself, and the authors' forms."""

from __future__ import annotations

import pytest
import torch

from registry import create
from st_utils.errors import UserError
from tests.attention.lively import lively

SSA = "ssa(qkv_bias=false, proj_bias=false)"


def build(spec: str, **settings) -> torch.nn.Module:
    return lively(create("attention", spec, dim=8, num_heads=2, step=3, **settings))


def spikes(height: int = 4, width: int = 6) -> torch.Tensor:
    return (torch.rand(3, 2, 8, height, width) < 0.5).double()


@pytest.mark.parametrize("strided", [False, True])
def test_each_window_is_an_image_for_ssa(strided):
    local, whole = build(f"local_ssa(windows=2, legacy_strided={strided})"), build(SSA)
    whole.load_state_dict(local.state_dict())
    x = spikes()
    rows = (slice(0, None, 2), slice(1, None, 2)) if strided else (slice(0, 2), slice(2, 4))
    columns = (slice(0, None, 2), slice(1, None, 2)) if strided else (slice(0, 3), slice(3, 6))
    mixed = local(x)
    for row in rows:
        for column in columns:
            torch.testing.assert_close(mixed[..., row, column], whole(x[..., row, column]))


def test_one_window_is_ssa():
    local, whole = build("local_ssa(windows=1)"), build(SSA)
    whole.load_state_dict(local.state_dict())
    x = spikes(3, 5)
    torch.testing.assert_close(local(x), whole(x))


def test_a_grid_that_does_not_divide_is_padded_with_zeros():
    local = build("local_ssa(windows=2)")
    x = spikes(3, 5)
    padded = torch.zeros(3, 2, 8, 4, 6).double()
    padded[..., :3, :5] = x
    torch.testing.assert_close(local(x), local(padded)[..., :3, :5])


def test_the_shared_projection_goes_on_without_a_reset():
    layer = build("local_ssa(windows=1, legacy_shared_qkv=true)")
    assert not {"k", "v"} & {name.split(".")[0] for name in layer.state_dict()}
    x = spikes()
    currents = layer.q.norm(layer.q.conv(x.flatten(0, 1))).unflatten(0, (3, 2))
    v, found = torch.zeros_like(currents[0]), []
    for current in [*currents] * 3:
        h = v + (current - v) / 2
        found.append((h >= 1).double())
        v = h * (h < 1)
    q, k, v = layer.qkv(x)
    torch.testing.assert_close(torch.cat([q, k, v]), torch.stack(found))
    assert not torch.equal(q, k)
    layer.train()
    layer.qkv(x)
    assert layer.q.norm.num_batches_tracked == 3


def test_the_reshape_of_the_benchmark():
    x = torch.arange(2 * 3 * 4.0).view(1, 1, 2, 3, 4)  # T B heads tokens width
    found = build("local_ssa(legacy_reshape=true)").merge_heads(x, 1)
    flat = x.flatten().tolist()
    expected = [[flat[n * 8 + h * 4 + d] for d in range(4) for h in range(2)] for n in range(3)]
    assert found.flatten().tolist() == [value for token in expected for value in token]
    right = build("local_ssa").merge_heads(x, 1)
    assert right[0, 0, 5, 0].tolist() == x[0, 0, 1, :, 1].tolist()


def test_mistakes():
    with pytest.raises(UserError, match="windows must be at least 1, not 0"):
        build("local_ssa(windows=0)")
