"""SpikingResformer's stages, and the names in the checkpoints of its authors' own code."""

from __future__ import annotations

import pytest
import torch

import zoo
from st_utils.errors import UserError

ORIGINAL = ("xyshi2000/SpikingResformer", "models/spikingresformer.py")
ARGUMENTS = {
    "layers": [["DSSA", "GWFFN"] * 2, ["DSSA", "GWFFN"]],
    "planes": [16, 32],
    "num_heads": [1, 2],
    "patch_sizes": [2, 1],
    "group_size": 16,
    "num_classes": 6,
    "img_size": 32,
    "T": 3,
}


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    shapes = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (channels,))
    return {f"{name}.bn.{key}": shape for key, shape in {**shapes, "num_batches_tracked": ()}.items()}


def unit(place: str, dim: int, heads: int, patch: int) -> dict[str, tuple[int, ...]]:
    """The tensors of one pair of attention and MLP in the authors' class; the second's place is one further on."""
    stage, first = map(int, place.split("."))
    attention, mlp = f"layers.{stage}.{first}", f"layers.{stage}.{first + 1}"
    return {
        f"{attention}.firing_rate_x": (1, 1, heads, 1, 1),
        f"{attention}.firing_rate_attn": (1, 1, heads, 1, 1),
        f"{attention}.W.weight": (2 * dim, dim, patch, patch),
        **norm(f"{attention}.norm", 2 * dim),
        f"{attention}.Wproj.weight": (dim, dim, 1, 1),
        **norm(f"{attention}.norm_proj", dim),
        f"{mlp}.up.1.weight": (4 * dim, dim, 1, 1),
        **norm(f"{mlp}.up.2", 4 * dim),
        f"{mlp}.conv.0.1.weight": (4 * dim, 16, 3, 3),
        **norm(f"{mlp}.conv.0.2", 4 * dim),
        f"{mlp}.down.1.weight": (dim, 4 * dim, 1, 1),
        **norm(f"{mlp}.down.2", dim),
    }


def test_the_authors_own_checkpoints():
    shapes = {"prologue.0.weight": (16, 3, 7, 7), **norm("prologue.1", 16), "classifier.weight": (6, 32)}
    shapes |= unit("0.0", 16, 1, 2) | unit("0.2", 16, 1, 2) | unit("1.1", 32, 2, 1)
    shapes |= {"layers.1.0.conv.weight": (32, 16, 3, 3), **norm("layers.1.0.norm", 32)}
    torch.manual_seed(0)
    weights = {key: torch.rand(shape) if shape else torch.tensor(7) for key, shape in shapes.items()}
    model = zoo.load_published(zoo.create_model(zoo.authors_spec(*ORIGINAL, ARGUMENTS, 4)), weights)
    assert torch.equal(model.embedding.conv.weight, weights["prologue.0.weight"])
    assert torch.equal(model.blocks[0][2].branch.rate_attn, weights["layers.0.2.firing_rate_attn"])
    assert torch.equal(
        model.blocks[1][2].branch.convs[0].norm.running_var, weights["layers.1.2.conv.0.2.bn.running_var"]
    )
    assert model.blocks[1][0].norm.num_batches_tracked == 7
    assert model.head.bias is None
    with pytest.raises(UserError, match="nothing for blocks.1.0.conv.weight"):
        zoo.load_published(model, {k: v for k, v in weights.items() if k != "layers.1.0.conv.weight"})


def test_the_scales_are_for_the_authors_image():
    """An eighth of a 224 pixel image's rows in the second stage, by patches of 1: where the image has 64 tokens."""
    model = zoo.create_model(zoo.authors_spec(*ORIGINAL, {**ARGUMENTS, "img_size": 224}, 4))
    assert [layer.branch.legacy_length for layer in (model.blocks[0][0], model.blocks[1][1])] == [28**2, 28**2]
    assert zoo.create_model("spikingresformer").blocks[0][0].branch.legacy_length is None


def test_stages():
    model = zoo.create_model("spikingresformer(embed_dim=16, depth=2, num_heads=[1, 2, 4], patch=[4, 2, 1])")
    attentions = [
        layer.branch for stage in model.blocks for layer in stage if hasattr(getattr(layer, "branch", 0), "patch")
    ]
    assert [(a.proj.conv.in_channels, a.num_heads, a.patch) for a in attentions[::2]] == [
        (4, 1, 4),
        (8, 2, 2),
        (16, 4, 1),
    ]
    assert len(attentions) == 6
    x = torch.rand(2, 3, 20, 28)
    assert model.blocks(model.embedding(model.encoder(x))).shape == (4, 2, 16, 5, 7)


def test_an_attentions_own_arguments_come_first():
    tiny = "spikingresformer(embed_dim=16, depth=1, num_heads=2, attention={})"
    for attention, patches in (("dssa", [4, 2, 1]), ("dssa(patch=1)", [1, 1, 1]), ("dssa(patch=2)", [2, 2, 2])):
        model = zoo.create_model(tiny.format(attention))
        assert [stage[-2].branch.patch for stage in model.blocks] == patches
    zoo.create_model(tiny.format("ssa"))(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("spikingresformer(depth=[1, 2])", "embed_dim, depth, num_heads, patch must be of the same number of stages"),
        ("spikingresformer(embed_dim=2, num_heads=1)", "each stage needs at least one"),
        ("spikingresformer(depth=0)", "each stage needs at least one"),
        ("spikingresformer(num_heads=5)", "dim=64 is not a multiple of num_heads=5"),
    ],
)
def test_mistakes(spec, message):
    with torch.device("meta"), pytest.raises(UserError, match=message):
        zoo.create_model(spec)


def test_constructors_that_have_no_spec():
    with pytest.raises(UserError, match="layers must be DSSA, GWFFN in turn"):
        zoo.authors_spec(*ORIGINAL, {**ARGUMENTS, "layers": [["DSSA"], ["GWFFN"]]}, 4)
    with pytest.raises(UserError, match="unknown prologue Conv"):
        zoo.authors_spec(*ORIGINAL, {**ARGUMENTS, "prologue": "Conv"}, 4)
