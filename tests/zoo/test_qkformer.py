"""QKFormer: its stages, its authors' leak, and any part in any of them; TIM's and Spikformer's forms at any size."""

from __future__ import annotations

import pytest
import torch

import zoo
from registry import names
from st_utils.errors import UserError
from tests import golden_numbers as golden
from tests.zoo.test_parts import missing_gradients

TINY = {"embed_dim": 16, "num_heads": 2, "mlp_ratio": 2.0, "step": 2}


def tiny(spec: str = "qkformer", **settings) -> torch.nn.Module:
    torch.manual_seed(0)
    return zoo.create_model(spec, **{**TINY, "depth": 3, "img_size": 8, **settings})


def trains(model: torch.nn.Module, size: tuple[int, int] = (8, 8)) -> None:
    logits = model(torch.rand(2, 3, *size))
    assert logits.shape == (2, 10)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert missing_gradients(model) == []


@pytest.mark.filterwarnings("ignore:on these weights")
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("path", golden.files("qkformer_*_b1*"), ids=lambda path: path.stem)
def test_with_one_sample_there_is_no_leak(path, legacy):
    """With a batch of one the authors' numbers are those of either form."""
    numbers = golden.read(path)
    source, x = numbers["source"], golden.draw("input", numbers["input"])
    spec = zoo.authors_spec(source["repository"], source["file"], numbers["constructor"], 4, numbers["neuron"])
    assert spec.args["legacy_batch_leak"] is True
    model = zoo.create_model(spec, legacy_batch_leak=legacy).double()
    zoo.load_published(model, golden.state_dict(numbers), strict_spec=False)
    for mode in ("eval", "train"):
        model.train(mode == "train")
        torch.testing.assert_close(model(x), golden.tensor(numbers[mode]["output"]), rtol=0, atol=1e-9)


@pytest.mark.filterwarnings("ignore:on these weights")
@pytest.mark.parametrize("legacy", [False, True])
def test_only_the_authors_form_leaks(legacy):
    """On the authors' weights, a sample's logits depend on the one before it in the batch, or don't."""
    numbers = golden.read(golden.FOLDER / "qkformer_cifar.json")
    source, x = numbers["source"], golden.draw("input", numbers["input"])
    spec = zoo.authors_spec(source["repository"], source["file"], numbers["constructor"], 4, numbers["neuron"])
    model = zoo.create_model(spec, legacy_batch_leak=legacy).double()
    zoo.load_published(model, golden.state_dict(numbers), strict_spec=False).eval()
    with torch.no_grad():
        together, apart = model(x), torch.cat([model(x[:1]), model(x[1:])])
    assert torch.allclose(together, apart, rtol=0, atol=1e-9) != legacy


@pytest.mark.parametrize("attention", names("attention"))
def test_any_attention_in_any_stage(attention):
    trains(tiny(attention=attention))
    trains(tiny(token_attention=attention))


@pytest.mark.parametrize("shape", [(8, 8), (13, 22), (1, 5)])
@pytest.mark.parametrize(
    "form",
    [
        {},
        {"embedding": "speds(stride=8)", "depth": (1, 1), "embed_dim": 32},
        {"embedding": "speds", "early_pooling": True},
    ],
    ids=["cifar", "events", "imagenet"],
)
def test_any_size_and_number_of_steps(form, shape):
    trains(tiny(img_size=shape, **{"step": 3, **form}), shape)


@pytest.mark.parametrize(
    ("depth", "stages"), [(1, [1]), (2, [1, 1]), (3, [1, 1, 1]), (10, [1, 1, 8]), ((1, 0, 2, 1), [1, 0, 2, 1])]
)
def test_depths(depth, stages):
    model = tiny(depth=depth, embed_dim=32)
    assert [len(stage) for stage in model.blocks[::2]] == stages
    mixers = [type(block.attention.branch).__name__ for stage in model.blocks[::2] for block in stage]
    assert mixers == ["QKToken"] * sum(stages[:-1]) + ["SSA"] * stages[-1]
    trains(model)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("qkformer(depth=0)", "depth must be at least 1"),
        ("qkformer(depth=[1, -1])", r"give the blocks of each stage, not \[1, -1\]"),
        ("qkformer(embed_dim=18)", "embed_dim=18 is not a multiple of 4, for qkformer with 3 stages"),
        ("qkformer(num_heads=7)", "dim=96 is not a multiple of num_heads=7"),
        ("qkformer(attention=identity, legacy_batch_leak=true, shortcut=membrane)", "legacy_batch_leak needs"),
    ],
)
def test_mistakes(spec, message):
    with torch.device("meta"), pytest.raises(UserError, match=message):
        zoo.create_model(spec)


FORMS = [
    "spikformer",
    'spikformer(embedding=sps(pooling="1111"), attention=ssa(qkv_bias=false, scale=0.25))',
    'spikformer(embedding=sps(pooling="1111"), attention=ssa(qkv_bias=false))',
    "sdt",
    'sdt(embedding=ms_sps(pooling="1111"))',
    'sdt(embedding=ms_sps(pooling="0111"))',
    'sdt(attention=sdsa(pool="kv", legacy_token_pool=true))',
    "sdt(attention=statten(chunk=3, events=true))",
    "sdt(attention=statten(chunk=3))",
    'spikformer_v2(embedding=scs(pooling="0011"))',
    "tim",
]


@pytest.mark.parametrize("size", [(7, 7), (16, 16), (33, 47)])
@pytest.mark.parametrize("form", FORMS)
def test_any_size_and_number_of_steps_in_the_published_forms(form, size):
    model = zoo.create_model(form, **{**TINY, "step": 3, "depth": 1, "img_size": size})
    trains(model, size)
    assert model(torch.rand(1, 3, 3, *size), per_step=True).shape == (3, 1, 10)
