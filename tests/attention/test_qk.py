"""QKFormer's attentions against their equations."""

from __future__ import annotations

import pytest
import torch

from registry import create
from st_utils.errors import UserError

SHAPE = (3, 2, 8, 4, 5)  # T B D H W


def attention(name: str, **settings) -> torch.nn.Module:
    """In float64 and eval mode, with norms that let the neurons fire."""
    torch.manual_seed(0)
    part = create("attention", name, dim=8, num_heads=2, step=3, node="lif", **settings).double().eval()
    for module in part.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 1, 2)
            torch.nn.init.uniform_(module.bias, 0, 1)
    return part


def lif(current: torch.Tensor, threshold: float) -> torch.Tensor:
    """The textbook loop, tau 2."""
    v, spikes = torch.zeros_like(current[0]), []
    for x in current:
        h = v + (x - v) / 2
        spikes.append((h >= threshold).double())
        v = torch.where(h >= threshold, 0.0, h)
    return torch.stack(spikes)


@pytest.mark.parametrize("name", ["qk_token", "qk_channel"])
def test_the_mask_by_hand(name):
    part = attention(name)
    x = torch.randint(0, 3, SHAPE).double()
    with torch.no_grad():
        q, k = part.q(x), part.k(x)
        expected = torch.zeros_like(k)
        if name == "qk_token":
            sums = torch.stack([q[:, :, :4].sum(2), q[:, :, 4:].sum(2)], 2)  # a number a head and token
            mask = lif(sums, 0.5)
            for channel in range(8):
                expected[:, :, channel] = k[:, :, channel] * mask[:, :, channel // 4]
        else:
            mask = lif(torch.einsum("tbdhw->tbd", q), 0.5)
            for channel in range(8):
                expected[:, :, channel] = k[:, :, channel] * mask[:, :, channel, None, None]
        assert 0 < mask.mean() < 1 or name == "qk_channel"
        assert not torch.equal(expected, torch.zeros_like(expected))
        torch.testing.assert_close(part(x), part.proj(expected), rtol=0, atol=1e-12)


def test_one_spike_of_q_opens_a_tokens_mask():
    part = attention("qk_token")
    q = torch.zeros(SHAPE).double()
    q[1, 0, 5, 2, 3] = 1
    mask = part.attn_node(part.count(q))
    assert mask.nonzero().tolist() == [[1, 0, 1, 2, 3]]


def test_heads_matter_to_tokens_and_not_to_channels():
    x = torch.randint(0, 3, SHAPE).double()
    for name, same in (("qk_token", False), ("qk_channel", True)):
        one, two = (create("attention", name, dim=8, num_heads=h, step=3, node="lif").double().eval() for h in (1, 8))
        two.load_state_dict(one.state_dict())
        torch.nn.init.constant_(one.q.norm.bias, 0.4)
        torch.nn.init.constant_(two.q.norm.bias, 0.4)
        torch.nn.init.constant_(one.k.norm.bias, 2)
        torch.nn.init.constant_(two.k.norm.bias, 2)
        assert torch.equal(one(x), two(x)) == same


@pytest.mark.parametrize("num_heads", [0, 3])
def test_heads_must_divide_the_channels(num_heads):
    with pytest.raises(UserError, match=f"dim=8 is not a multiple of num_heads={num_heads}"):
        create("attention", "qk_token", dim=8, num_heads=num_heads, step=2, node="lif")
