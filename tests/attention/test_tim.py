"""The temporal interaction module against its equation, step by step."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import zoo
from registry import create
from st_utils.errors import UserError
from st_utils.node.base import StepByStep, build_node

DIM, HEADS, GRID = 8, 2, (3, 4)


def tim(step: int, **settings) -> torch.nn.Module:
    torch.manual_seed(0)
    settings = {"node": "lif", "in_threshold": 0.2, "out_threshold": 0.3, **settings}
    return create("attention", "tim", dim=DIM, num_heads=HEADS, step=step, grid=GRID, **settings).double()


def spikes(step: int, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 2, (step, batch, DIM, *GRID), generator=generator).double()


@pytest.mark.parametrize("step", [2, 5])
@pytest.mark.parametrize("tau", [2.0, 3.0])
def test_by_hand(step, tau):
    """A convolution over the channels of a head with the tokens as its channels, and two LIFs with their membranes."""
    part = tim(step, alpha=0.7, tim_node=f"lif(tau={tau})")
    torch.nn.init.normal_(part.interactor.weight, std=0.5)
    q, mixed = spikes(step), 0
    z, v_in, v_out = q[0], 0.0, 0.0
    out = part.interact(q)
    torch.testing.assert_close(out[0], q[0])
    for t in range(1, step):
        past = torch.empty_like(z)
        for head in range(HEADS):
            part_of_head = slice(head * DIM // HEADS, (head + 1) * DIM // HEADS)
            tokens = z[:, part_of_head].flatten(2).transpose(1, 2)  # B N d
            y = F.conv1d(tokens, part.interactor.weight, part.interactor.bias, padding=2)
            past[:, part_of_head] = y.transpose(1, 2).unflatten(2, GRID)
        h = v_in + (past - v_in) / tau
        s_in = (h >= 0.2).double()
        v_in = h * (1 - s_in)
        h = v_out + (0.7 * s_in + 0.3 * q[t] - v_out) / tau
        z = (h >= 0.3).double()
        v_out = h * (1 - z)
        mixed += int(not torch.equal(z, q[t]))
        torch.testing.assert_close(out[t], z)
    assert mixed, "the test is idle: nothing was mixed"


@pytest.mark.parametrize("node", ["lif", "plif", "clif", "psn", "glif", "ilif"])
def test_gradients_reach_the_first_step(node):
    part = tim(4, node=node)
    q = spikes(4).requires_grad_()
    part.interact(q)[-1].sum().backward()
    assert torch.isfinite(q.grad).all()
    assert q.grad[0].abs().sum() > 0


def test_the_published_thresholds_silence_all_steps_but_the_first():
    part = tim(4, in_threshold=1.0, out_threshold=1.0, node="lif(surrogate=qgate(strict=true))")
    out = part.interact(torch.ones_like(spikes(4)))
    assert out[0].all()
    assert not out[1:].any()
    assert tim(4, in_threshold=0.3, out_threshold=0.5).interact(torch.ones_like(spikes(4)))[1:].any()


def test_one_step_has_no_past():
    part = tim(1)
    assert torch.equal(part.interact(spikes(1)), spikes(1))
    assert not any(name.startswith(("interactor", "in_node", "out_node")) for name, _ in part.named_modules())


@pytest.mark.parametrize("node", ["if", "lif(tau=3.0)", "lif(v_reset=none)", "plif", "klif", "clif", "glif"])
def test_step_by_step_is_the_whole_sequence(node):
    """Spikes and gradients, for every causal neuron; hooks see each step once."""
    torch.manual_seed(0)
    part = build_node(node, 5, 3).double()
    x = torch.randn(5, 2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 2, 3, 4, 4, dtype=torch.float64)
    whole = part(x)
    (whole * weight).sum().backward()
    expected, x.grad = x.grad, None
    seen = []
    part.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    one_by_one = StepByStep(part, 5)
    stepped = torch.stack([one_by_one(current) for current in x])
    (stepped * weight).sum().backward()
    assert torch.equal(stepped, whole)
    assert 0 < whole.mean() < 1
    torch.testing.assert_close(x.grad, expected)
    assert len(seen) == 1
    assert torch.equal(seen[0], whole)


@pytest.mark.parametrize("size", [16, 48, (33, 47)])
def test_any_image_size(size):
    height, width = (size, size) if isinstance(size, int) else size
    model = zoo.create_model("tim", img_size=size, embed_dim=16, num_heads=2, depth=1, step=3, num_classes=4)
    assert model(torch.rand(2, 3, 3, height, width)).shape == (2, 4)
    tokens = -(-height // 16) * -(-width // 16)
    assert model.blocks[0].attention.branch.interactor.in_channels == tokens


def test_mistakes():
    with pytest.raises(UserError, match=r"tim was built for \(3, 4\) tokens and got \(2, 2\): give the img_size"):
        tim(2).interact(torch.zeros(2, 1, DIM, 2, 2).double())
    with pytest.raises(UserError, match="alpha must be from 0 to 1"):
        tim(2, alpha=1.5)
    with pytest.raises(UserError, match="kernel must be odd"):
        tim(2, kernel=4)
