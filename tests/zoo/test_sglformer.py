"""SGLFormer's head, which convolves over all tokens and steps."""

from __future__ import annotations

import pytest
import torch

import zoo
from registry import create
from st_utils.errors import UserError
from tests.attention.lively import lively

TINY = {"embed_dim": 16, "num_heads": 2, "mlp_ratio": 2, "step": 3}


def test_the_head_weighs_every_token_and_step():
    model = lively(zoo.create_model("sglformer", img_size=16, **TINY))
    tokens = torch.rand(3, 2, 16, 4, 4).double()
    head = model.full_size
    assert head.conv.weight.shape == (16, 1, 16, 3)
    summed = torch.einsum("tbcn,cnt->bc", tokens.flatten(3), head.conv.weight[:, 0]) + head.conv.bias
    torch.testing.assert_close(head(tokens)[..., 0, 0], head.norm(summed[..., None, None])[..., 0, 0])
    logits = model(torch.rand(2, 3, 16, 16).double(), per_step=True)
    assert torch.equal(logits[0], logits[2])


def test_over_more_tokens_it_slides():
    model = lively(zoo.create_model("sglformer", img_size=16, head_tokens=15, **TINY))
    tokens = torch.rand(3, 2, 16, 4, 4).double()
    kernel = model.full_size.conv.weight[:, 0]
    flat = tokens.flatten(3)
    both = [torch.einsum("tbcn,cnt->bc", flat[..., i : i + 15], kernel) for i in (0, 1)]
    expected = sum(model.full_size.norm((y + model.full_size.conv.bias)[..., None, None]) for y in both) / 2
    torch.testing.assert_close(model.full_size(tokens), expected)
    with pytest.raises(UserError, match="the head spans 15 tokens and got 4: say img_size or head_tokens"):
        model(torch.rand(1, 3, 8, 8).double())


@pytest.mark.parametrize(
    ("embedding", "tokens"), [("sgl_tokenizer", 20), ('sgl_tokenizer(pooling="0000")', 320), ("sps", 20)]
)
def test_it_spans_what_the_image_has(embedding, tokens):
    model = zoo.create_model("sglformer", img_size=(16, 20), embedding=embedding, **TINY)
    assert model.full_size.conv.kernel_size == (tokens, 3)


@pytest.mark.parametrize("shortcut", ["spike", "membrane"])
def test_local_convolutions(shortcut):
    model = lively(zoo.create_model("sglformer", shortcut=shortcut, img_size=16, **TINY))
    loc = model.blocks[0].loc
    x = (torch.rand(3, 2, 16, 4, 4) < 0.5).double()
    branch = (lambda r, y: r.node(r.branch(y))) if shortcut == "spike" else (lambda r, y: r.branch(r.node(y)))
    y = x + branch(loc.near, x)
    torch.testing.assert_close(loc(x), x + y + branch(loc.mix, y))
    assert type(loc.mix.branch) is type(create("attention", "sepconv", dim=4))
