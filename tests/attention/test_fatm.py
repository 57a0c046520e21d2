"""The Haar transform and the token mixer on it."""

from __future__ import annotations

import pytest
import torch

from registry import create
from st_utils.attention.fatm import haar_matrix
from st_utils.errors import UserError
from tests.attention.lively import lively

HALF = 0.5**0.5
HAAR_4 = [[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, -0.5, -0.5], [HALF, -HALF, 0, 0], [0, 0, HALF, -HALF]]


def double(*shape):
    return torch.rand(*shape, dtype=torch.float64)


def test_haar_matrices():
    assert torch.equal(haar_matrix(1, double(1)), torch.ones(1, 1, dtype=torch.float64))
    torch.testing.assert_close(haar_matrix(4, double(1)), torch.tensor(HAAR_4, dtype=torch.float64))
    assert haar_matrix(4, torch.zeros(1))[0].tolist() == [0.5] * 4, "exact, so that thresholds are met or not"
    for size in (2, 8, 32):
        matrix = haar_matrix(size, double(1))
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(size, dtype=torch.float64))
        assert len(set(map(tuple, matrix.tolist()))) == size


@pytest.mark.parametrize(("height", "width"), [(4, 4), (2, 8), (1, 1), (3, 5)])
def test_the_formula(height, width):
    layer = lively(create("attention", "fatm(blocks=2)", dim=6, node="lif(threshold=0.4)"))
    layer.weight.data.normal_()
    x = (double(4, 2, 6, height, width) < 0.5).double()
    grid = [next(n for n in (1, 2, 4, 8) if n >= side) for side in (height, width)]
    padded = torch.zeros(4, 2, 6, *grid).double()
    padded[..., :height, :width] = x
    columns, rows = (haar_matrix(side, x) for side in grid)
    norm = lambda name, y: getattr(layer, name)(y.flatten(0, 1)).unflatten(0, (4, 2))  # noqa: E731

    y = layer.rows_node(torch.einsum("tbchw,vw->tbchv", padded, rows))
    y = layer.node(norm("forward_norm", torch.einsum("gh,tbchw->tbcgw", columns, y)))
    assert y.any()
    y = torch.cat(
        [torch.einsum("tbdhw,dk->tbkhw", y[:, :, s], w) for s, w in zip(BLOCKS, layer.weight, strict=True)], 2
    )
    y = torch.einsum("tbchv,vw->tbchw", layer.back_node(norm("product_norm", y)), rows)
    y = torch.einsum("gh,tbcgw->tbchw", columns, layer.columns_node(y))[..., :height, :width]
    expected = norm("inverse_norm", y)
    for name in ("point", "local"):
        blocks = [getattr(layer, name)(x[:, :, s].flatten(0, 1)).unflatten(0, (4, 2)) for s in BLOCKS]
        expected = expected + norm(f"{name}_norm", torch.cat(blocks, 2))
    torch.testing.assert_close(layer(x), expected)


BLOCKS = (slice(0, 3), slice(3, 6))


def test_blocks():
    assert [create("attention", "fatm", dim=dim).blocks for dim in (384, 24, 7)] == [16, 8, 1]
    with pytest.raises(UserError, match="fatm: dim=24 is not a multiple of blocks=16"):
        create("attention", "fatm(blocks=16)", dim=24)
