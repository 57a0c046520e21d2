"""Every part trains in every model that has a place for it; what is refused is in the tables of docs/parts.md."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import zoo
from registry import SpecError, entry, names
from st_utils.braincog import networks as braincog_net
from st_utils.braincog import nodes as braincog_adapter
from st_utils.errors import UserError
from tests.zoo.test_models import picture, small
from tests.zoo.test_parts import choices, missing_gradients

PLACES = ("attention", "embedding", "mlp", "node", "encoder")
FOUR_HALVINGS = ("meta_stem", "scs")  # they leave 2 x 2 tokens of 32 pixels, and dssa's first patches are 4 x 4
DOCS = Path(__file__).parents[2] / "docs" / "parts.md"


def combinations() -> list[tuple[str, str, str]]:
    models = names("model", families=False)
    return [(m, k, part) for m in models for k in PLACES if k in entry("model", m).params for part in choices(k)]


@pytest.mark.parametrize(("model", "kind", "part"), combinations(), ids=lambda part: part)
def test_it_trains(model, kind, part):
    net = small(model, **({"embed_dim": 32} if "embed_dim" in entry("model", model).params else {}), **{kind: part})
    wide = model == "spikingresformer" and part in FOUR_HALVINGS
    logits = net(torch.nn.functional.interpolate(picture(), size=64) if wide else picture())
    assert logits.shape == (2, 10)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    assert missing_gradients(net) == []


@pytest.mark.parametrize("model", names("model", families=False))
@pytest.mark.parametrize("kind", PLACES)
def test_a_model_without_a_place_for_a_part_says_so(model, kind):
    if kind in entry("model", model).params:
        return
    with pytest.raises(SpecError, match=f"model '{model}' has no argument '{kind}'; "):
        zoo.create_model(model, **{kind: names(kind)[0]})
    assert f"| `{model}` " in DOCS.read_text(), "docs/parts.md lists models that lack a place"


@pytest.mark.parametrize("name", braincog_adapter.REFUSED)
def test_refused_nodes_are_listed(name):
    with pytest.raises(UserError) as error:
        small("spikformer", node=f"braincog.{name}")
    assert "\n" not in str(error.value)
    assert f"`braincog.{name}`" in DOCS.read_text()


@pytest.mark.parametrize("name", braincog_net.REFUSED)
def test_refused_networks_are_listed(name):
    assert f"`braincog.{name}`" in DOCS.read_text()
