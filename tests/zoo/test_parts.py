"""Every pair of registered parts builds, runs and trains, and no sample depends on its neighbours.

Pairs, not all combinations: about 2,000 models in place of 250,000. A part that fails with another
fails in their pair.
"""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

import zoo
from registry import entry, names
from st_utils.errors import UserError

TINY = {"embed_dim": 16, "depth": 1, "num_heads": 2, "mlp_ratio": 2, "img_size": 16, "step": 2}
KINDS = ("embedding", "attention", "mlp", "node", "surrogate")


def working_nodes() -> list[str]:
    """The nodes that can be a layer; the refusals of BrainCog's others are tested elsewhere."""
    from st_utils.braincog.nodes import REFUSED

    return [name for name in names("node") if name.removeprefix("braincog.") not in REFUSED]


def choices(kind: str) -> list[str]:
    """The names of a kind that every pair is made of."""
    return working_nodes() if kind == "node" else names(kind)


def pairs() -> list[dict[str, str]]:
    """All pairs of parts of two kinds, without surrogates for nodes that take none."""
    found = []
    for left, right in combinations(KINDS, 2):
        for a in choices(left):
            for b in choices(right):
                if right != "surrogate" or left != "node" or "surrogate" in entry("node", a).params:
                    found.append({left: a, right: b})
    return found


def label(parts: dict[str, str]) -> str:
    return "-".join(parts.values())


def images(batch: int = 2, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(batch, 3, 16, 16, generator=generator, dtype=dtype) * 2


def missing_gradients(model: torch.nn.Module) -> list[str]:
    """Names of the parameters that got no gradient, or one that is not finite."""
    return [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not torch.isfinite(p.grad).all())
    ]


@pytest.mark.parametrize("parts", pairs(), ids=label)
def test_every_pair_trains(parts):
    torch.manual_seed(0)
    model = zoo.create_model("spikformer", **TINY, **parts)
    logits = model(images())
    assert logits.shape == (2, 10)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert missing_gradients(model) == []


@pytest.mark.parametrize("model", ["spikformer", "sdt"])
@pytest.mark.parametrize("attention", names("attention"))
@pytest.mark.parametrize("embedding", names("embedding"))
def test_no_sample_depends_on_its_neighbours(model, attention, embedding):
    net = active_model(model, attention=attention, embedding=embedding)
    x = images(3, torch.float64)
    with torch.no_grad():
        tokens = net.blocks(net.embedding(net.encoder(x)))
        together, apart = net(x), torch.cat([net(x[i : i + 1]) for i in range(3)])
    assert not torch.allclose(tokens[:, 0], tokens[:, 1]), "the test is idle: all images look alike"
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-9)


@pytest.mark.parametrize("node", [n for n in working_nodes() if not n.startswith("braincog.")])
def test_no_sample_depends_on_its_neighbours_with_any_node(node):
    net = active_model("spikformer", node=node)
    x = images(3, torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(net(x), torch.cat([net(x[i : i + 1]) for i in range(3)]), rtol=0, atol=1e-9)


def active_model(model: str, **parts: str) -> torch.nn.Module:
    """A model in eval mode, weighted and biased so that its neurons fire, whose norms have seen data."""
    torch.manual_seed(1)
    net = zoo.create_model(model, **TINY, **parts).double()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=2.5 * module.weight[0].numel() ** -0.5)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.weight, 2)
            torch.nn.init.uniform_(module.bias, 0.9, 1.1)  # no potential lies on its threshold
    return settled(net, images(8, torch.float64))


def settled(net: torch.nn.Module, x: torch.Tensor) -> torch.nn.Module:
    """The model in eval mode; its norms have the statistics of x, which many passes with momentum 0.1 approach."""
    for module in net.modules():
        if hasattr(module, "momentum"):
            module.momentum = 1.0
    with torch.no_grad():
        net.train()(x)
    return net.eval()


def test_the_plugin_file_takes_part():
    assert {"embedding": "sps", "attention": "plugin_attention"} in pairs()


def test_parts_that_cannot_work_together_say_so():
    with pytest.raises(UserError, match=r"step=3 is not a multiple of chunk=2"):
        zoo.create_model("spikformer(attention=statten, step=3)")
    with pytest.raises(UserError, match=r"dim=384 is not a multiple of num_heads=7"):
        zoo.create_model("spikformer(num_heads=7)")
    with pytest.raises(UserError, match=r"does not divide into patches"):
        zoo.create_model("spikformer(embedding=vit_embed(patch=5))")
    with pytest.raises(UserError, match=r'pooling must be four of 0 and 1, such as "0011"'):
        zoo.create_model('spikformer(embedding=sps(pooling="01"))')
