"""scale Q K^T V against its definition, in both orders of multiplication."""

from __future__ import annotations

import pytest
import torch

from st_utils.attention.linear_attention import linear_attention


@pytest.mark.parametrize(("tokens", "width", "value_width"), [(3, 8, 8), (64, 8, 8), (8, 8, 8), (5, 4, 16), (1, 1, 1)])
def test_the_product(tokens, width, value_width):
    torch.manual_seed(0)
    q, k = torch.randn(2, 4, 3, 2, tokens, width, dtype=torch.float64)
    v = torch.randn(4, 3, 2, tokens, value_width, dtype=torch.float64)
    expected = 0.25 * torch.einsum("tbhnd,tbhmd,tbhmc->tbhnc", q, k, v)
    torch.testing.assert_close(linear_attention(q, k, v, scale=0.25), expected)


class Counted(torch.Tensor):
    """A tensor that counts the multiplications of its matrix products."""

    multiplications = 0

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.matmul or func is torch.Tensor.__matmul__:
            Counted.multiplications += args[0].numel() * args[1].shape[-1]
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize(("tokens", "width", "value_width"), [(3, 8, 8), (64, 8, 8), (5, 4, 16), (12, 4, 16)])
def test_the_cheaper_order_is_taken(tokens, width, value_width):
    q, k = (torch.ones(1, 1, 1, tokens, width).as_subclass(Counted) for _ in range(2))
    v = torch.ones(1, 1, 1, tokens, value_width).as_subclass(Counted)
    Counted.multiplications = 0
    linear_attention(q, k, v, scale=1.0)
    left, right = tokens**2 * (width + value_width), 2 * tokens * width * value_width
    assert Counted.multiplications == min(left, right)
