"""Dual spike self-attention against its formula, and the firing rates that it remembers."""

from __future__ import annotations

import pytest
import torch

from registry import create
from st_utils.errors import UserError
from tests.attention.lively import lively


def build(spec: str = "dssa(patch=2)") -> torch.nn.Module:
    return lively(create("attention", spec, dim=8, num_heads=2, step=3))


def spikes(rate: float = 0.5) -> torch.Tensor:
    return (torch.rand(3, 2, 8, 4, 6) < rate).double()


@pytest.mark.parametrize(("spec", "length"), [("dssa(patch=2)", 6), ("dssa(patch=2, legacy_length=50)", 50)])
def test_the_formula(spec, length):
    layer, x = build(spec), spikes()
    layer.rate_x.copy_(torch.tensor([0.3, 0.7]).view(1, 1, 2, 1, 1))
    layer.rate_attn.copy_(torch.tensor([0.05, 0.02]).view(1, 1, 2, 1, 1))
    y = layer.duals(x.flatten(0, 1)).view(3, 2, 2, 2, 4, 6)  # T B head dual d patches
    tokens = x.view(3, 2, 2, 4, 24)
    scores = torch.einsum("tbhdp,tbhdn->tbhpn", y[:, :, :, 0], tokens) / (layer.rate_x * 4).sqrt()
    attn = layer.attn_node(scores)
    assert 0.01 < attn.mean() < 0.99
    mixed = torch.einsum("tbhdp,tbhpn->tbhdn", y[:, :, :, 1], attn) / (layer.rate_attn * length).sqrt()
    torch.testing.assert_close(layer(x), layer.proj(layer.out_node(mixed.reshape(x.shape))))


def test_the_rates_follow_training():
    layer, first, second = build().train(), spikes(0.2), spikes(0.8)
    rate = lambda x: x.view(3, 2, 2, 4, 24).mean((0, 1, 3, 4))  # noqa: E731
    layer(first)
    torch.testing.assert_close(layer.rate_x.flatten(), rate(first))
    layer(second)
    torch.testing.assert_close(layer.rate_x.flatten(), 0.999 * rate(first) + 0.001 * rate(second))
    before = layer.rate_x.clone()
    layer.eval()(first)
    assert torch.equal(layer.rate_x, before)
    assert not layer.rate_x.requires_grad


def test_unknown_and_silent_rates_count_as_one():
    untrained = build()
    ones = build()
    ones.load_state_dict(untrained.state_dict())
    ones.rate_x.fill_(1)
    ones.rate_attn.fill_(1)
    x = spikes()
    assert torch.equal(untrained(x), ones(x))
    silent = torch.zeros_like(x, requires_grad=True)
    untrained.train()(silent).square().sum().backward()
    assert torch.isfinite(silent.grad).all()
    half = spikes()
    half[:, :, :4] = 0  # the first head's channels
    untrained(half)
    assert untrained.rate_x.flatten()[0] == 0
    untrained(x)
    torch.testing.assert_close(untrained.rate_x.flatten()[0], x[:, :, :4].mean())


def test_tokens_that_fill_no_patch_are_mapped_to():
    layer = build("dssa(patch=4)")
    x = spikes()
    assert layer(x).shape == x.shape
    seen = layer(x) != layer(torch.cat([x[..., :5], 1 - x[..., 5:]], -1))
    assert seen.any()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dssa(patch=0)", "patch must be at least 1, not 0"),
        ("dssa(num_heads=3)", "dim=8 is not a multiple of num_heads=3"),
    ],
)
def test_mistakes(spec, message):
    with pytest.raises(UserError, match=message):
        build(spec)


def test_a_grid_smaller_than_a_patch():
    with pytest.raises(UserError, match="a grid of 4 x 6 tokens has no patch of 5 x 5"):
        build("dssa(patch=5)")(spikes())
