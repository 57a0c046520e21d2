"""A view of a buffer is what torch's own views and copies of it are, whatever was done in whatever order."""

from __future__ import annotations

import random
from math import prod

import pytest
import torch

from st_utils.plan.views import Buffer, View


def buffer_and_view() -> tuple[torch.Tensor, torch.Tensor, View]:
    """Numbers of a buffer, and `[T, B, C, H, W]` of them, by torch and as a view."""
    buffer = Buffer(images=6, height=4, width=2, channels=12)
    elements = torch.arange(float(prod(buffer.sizes)))
    x = elements.view(3, 2, 4, 2, 12).movedim(-1, 2)
    return elements, x, View.of(buffer, x.shape)


def a_step(x: torch.Tensor, view: View, draw: random.Random) -> tuple[torch.Tensor, View | None]:
    """One operation that models use, on both."""
    kind = draw.choice(("permute", "merge", "split", "slice", "take", "none", "expand"))
    if kind == "permute":
        order = draw.sample(range(x.dim()), x.dim())
        return x.permute(order), view.permuted(order)
    if kind == "merge" and x.dim() > 1:
        at = draw.randrange(x.dim() - 1)
        y = x.flatten(at, at + 1)
        return y, view.reshaped(y.shape)
    at = draw.randrange(x.dim())
    if kind == "split" and x.shape[at] % 2 == 0 and x.shape[at]:
        y = x.unflatten(at, draw.choice(((2, -1), (-1, 2))))
        return y, view.reshaped(y.shape)
    if kind == "slice" and x.shape[at] > 1:
        index = (*[slice(None)] * at, slice(draw.randrange(2), None, draw.choice((1, 2))))
        return x[index], view.indexed(index)
    if kind == "take" and x.dim() > 2:
        index = (*[slice(None)] * at, draw.randrange(x.shape[at]))
        return x[index], view.indexed(index)
    if kind == "none":
        return x[None], view.indexed(None)
    y = x.expand(2, *x.shape)
    return y, view.expanded(y.shape)


@pytest.mark.parametrize("seed", range(200))
def test_operations_in_any_order(seed):
    draw = random.Random(seed)
    elements, x, view = buffer_and_view()
    for _ in range(6):
        y, seen = a_step(x, view, draw)
        if seen is None:  # what a view can't show: nothing is claimed then
            continue
        x, view = y, seen
        assert view.shape == x.shape
        assert torch.equal(view.tensor(elements), x)


def test_attention_s_tokens_of_two_steps_are_one_axis_of_two_factors():
    elements, x, view = buffer_and_view()
    tokens = x.flatten(3).permute(1, 0, 3, 2)  # [B, T, N, C]
    seen = view.reshaped((3, 2, 12, 8)).permuted((1, 0, 3, 2)).reshaped((2, 24, 12))
    assert seen.dims[1] == ((3, 192), (8, 12)) and seen.whole
    assert torch.equal(seen.tensor(elements), tokens.reshape(2, 24, 12))


def test_what_a_view_can_not_show_is_none():
    _, _, view = buffer_and_view()
    assert view.reshaped((3, 2, 12, 4, 2)).reshaped((4, 144)) is None, (
        "144 numbers of 4: three images are not a half of 2"
    )
    assert view.indexed(torch.zeros(1, dtype=torch.long)) is None


def test_an_index_with_an_ellipsis():
    elements, x, view = buffer_and_view()
    for index in ((..., 0), (0, ..., slice(None, None, 2)), (..., slice(1, None), slice(None)), (None, ..., 1, 1)):
        assert torch.equal(view.indexed(index).tensor(elements), x[index])


def test_whole_is_each_element_once():
    _, _, view = buffer_and_view()
    assert view.whole and view.permuted((4, 3, 2, 1, 0)).whole
    assert not view.indexed(slice(0, 2)).whole and not view.indexed(0).whole
    assert not view.expanded((2, *view.shape)).whole
