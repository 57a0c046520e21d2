"""Maps of attention of whole models: by hand from the matrices, and the model is left as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from registry import names, register
from st_utils.analysis.attention import attention_maps
from st_utils.attention.attention_map import Mask, Matrix
from st_utils.errors import UserError
from tests.attention.lively import lively
from zoo import create_model

SMALL = {"embed_dim": 16, "depth": 1, "num_heads": 2, "mlp_ratio": 1.0, "num_classes": 3, "in_channels": 1}
SIZE = (12, 20)  # 3 x 5 tokens
IMAGES = torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(0))


def model_with(attention: str, **arguments) -> nn.Module:
    return lively(create_model("spikformer", attention=attention, img_size=SIZE, **SMALL | arguments)).float()


@pytest.mark.parametrize("attention", names("attention"))
def test_every_attention_has_maps_of_its_tokens(attention):
    model = model_with(attention)
    found = attention_maps(model, IMAGES)
    assert list(found) == ["blocks.0.attention.branch"]
    attended = found["blocks.0.attention.branch"]
    heat = attended.heat(1, (0.5, 0.5))
    assert heat.tokens == (3, 5)
    assert heat.mean.shape[0] == 4
    assert (heat.of_query is not None) == isinstance(attended.map, Matrix) == (heat.query is not None)
    assert heat.kind in ("weights", "mask", "masked", "|output|")
    assert torch.isfinite(heat.mean).all()
    if attended.map is None:
        torch.testing.assert_close(heat.mean[:, 0, 0], attended.output[:, 1].abs().sum(1) / 16)


def test_the_row_of_a_query_and_the_mean_over_queries():
    attended = attention_maps(model_with("statten"), IMAGES)["blocks.0.attention.branch"]
    heat = attended.heat(1, (0.9, 0.3))  # row 2 of 3, column 1 of 5
    weights = attended.map.weights[:, 1]  # [T, h, N, S, M]
    assert heat.query == (2, 1)
    assert weights.any()
    for s in range(2):
        assert torch.equal(heat.of_query[:, :, s].flatten(2), weights[:, :, 11, s])
        torch.testing.assert_close(heat.mean[:, :, s].flatten(2), sum(weights[:, :, n, s] for n in range(15)) / 15)
    assert attended.heat(0, (1.0, 1.0)).query == (2, 4)


def test_padded_tokens_are_no_queries():
    """Windows of 2 x 3 over 3 x 5 tokens: a grid of 4 x 6, whose last row and column belong to no image."""
    attended = attention_maps(model_with("local_ssa"), IMAGES)["blocks.0.attention.branch"]
    assert attended.map.grid == (4, 6)
    heat = attended.heat(0, (0.99, 0.99))
    weights = attended.map.weights[:, 0, :, :, 0]
    assert torch.equal(heat.of_query[:, :, 0].flatten(2), weights[:, :, 2 * 6 + 4])
    inside = [row * 6 + column for row in range(3) for column in range(5)]
    torch.testing.assert_close(heat.mean[:, :, 0].flatten(2), weights[:, :, inside].mean(2))


def test_a_mask_of_tokens_and_one_of_channels():
    by_token = attention_maps(model_with("qk_token"), IMAGES)["blocks.0.attention.branch"]
    heat = by_token.heat(0, (0.5, 0.5))
    assert heat.kind == "mask"
    assert torch.equal(heat.mean[:, :, 0], by_token.map.weights[:, 0, :, 0])
    assert set(heat.mean.unique().tolist()) <= {0.0, 1.0}
    by_channel = attention_maps(model_with("qk_channel"), IMAGES)["blocks.0.attention.branch"]
    heat = by_channel.heat(0, (0.5, 0.5))
    assert heat.kind == "masked"
    mask, keys = by_channel.map.weights[:, 0, 0], by_channel.map.values[:, 0, 0]
    torch.testing.assert_close(heat.mean[:, 0, 0], sum(mask[:, c] * keys[:, c] for c in range(16)) / 16)


def test_the_model_is_left_as_it_was():
    model = model_with("dssa").train()
    model.blocks[0].mlp.eval()
    before = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    attention_maps(model, IMAGES)
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_without_attention():
    with pytest.raises(
        UserError, match=r"^csnn has no registered attention: choose a model that has one, or --show gradcam$"
    ):
        attention_maps(create_model("csnn"), torch.rand(1, 1, 28, 28))


def test_stages_and_events():
    model = create_model("qkformer(embed_dim=16, depth=[1, 1], num_heads=2)", in_channels=2, img_size=16, step=3)
    found = attention_maps(model, torch.rand(1, 3, 2, 16, 16))
    shapes = {name: (type(each.map), tuple(each.output.shape)) for name, each in found.items()}
    assert shapes == {
        "blocks.0.0.attention.branch": (Mask, (3, 1, 8, 16, 16)),
        "blocks.2.0.attention.branch": (Matrix, (3, 1, 16, 8, 8)),
    }


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: x,
        lambda x: Mask(x, x, "x"),
        lambda x: Matrix(torch.ones(4, 2, 1, 15, 1, 14), torch.ones(4, 2, 1, 14, 16), (3, 5), (3, 5), "x"),
        lambda x: Matrix(torch.ones(4, 2, 1, 15, 3, 15), torch.ones(4, 2, 1, 15, 16), (3, 5), (3, 5), "x"),
    ],
)
def test_a_map_that_does_not_fit(answer):
    @register.attention("own_map")
    class OwnMap(nn.Module):
        def __init__(self, dim: int):
            super().__init__()

        def forward(self, x):
            return x

        def attention_map(self, x):
            return answer(x)

    with pytest.raises(UserError, match=r"^attention own_map.*: attention_map returns a \w+.*no Matrix or Mask"):
        attention_maps(model_with("own_map"), IMAGES)
