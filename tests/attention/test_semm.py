"""The spiking experts mixture against its formula, token by token."""

from __future__ import annotations

import pytest
import torch

from registry import create
from st_utils.errors import UserError
from tests.attention.lively import lively


@pytest.mark.parametrize("legacy", [False, True])
def test_the_formula(legacy):
    layer = lively(create("attention", f"semm(num_expert=3, expert_dim=5, scale=1.5, legacy_router={legacy})", dim=8))
    x = (torch.rand(4, 2, 8, 2, 3) < 0.5).double()
    k, v = layer.k(x), layer.v(x)
    currents = layer.router.norm(layer.router.conv(x.flatten(0, 1))).unflatten(0, (4, 2)).flatten(3)  # T B E N
    if legacy:  # token n's spike of expert e is that of place n E + e in [E, N], read row by row
        flat = currents.flatten(2)
        places = torch.tensor([[n * 3 + e for n in range(6)] for e in range(3)])
        currents = flat[:, :, places]
    chosen = layer.router.node(currents)
    assert 0.05 < chosen.mean() < 0.95
    total = torch.zeros(4, 2, 8, 6).double()
    for e in range(3):
        q = layer.q[e](x)
        attended = torch.einsum("tbdn,tbdm,tbcm->tbcn", q.flatten(3), k.flatten(3), v.flatten(3)) * 1.5
        spikes = layer.attn_nodes[e](attended)
        assert spikes.any()
        total += chosen[:, :, e, None] * spikes
    torch.testing.assert_close(layer(x), layer.proj(total.unflatten(3, (2, 3))))


def test_each_token_is_routed_by_itself():
    """With the right router a token's weights depend on that token; the authors' reshape mixes tokens up."""
    x = (torch.rand(2, 1, 8, 4, 4) < 0.5).double()
    other = x.clone()
    other[:, :, :, 0, 0] = 1 - other[:, :, :, 0, 0]
    for legacy, kept in ((False, True), (True, False)):
        layer = lively(create("attention", f"semm(legacy_router={legacy})", dim=8, step=2))
        changed = (layer.route(x) != layer.route(other)).any(2).flatten(2)
        assert changed[..., 1:].any() != kept


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("semm(num_expert=0)", "num_expert=0 and expert_dim=8 must be at least 1"),
        ("semm(num_expert=16)", "num_expert=16 and expert_dim=0 must be at least 1"),
    ],
)
def test_mistakes(spec, message):
    with pytest.raises(UserError, match=message):
        create("attention", spec, dim=8)
