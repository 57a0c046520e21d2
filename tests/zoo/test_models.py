"""What every registered model keeps, whatever it is made of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import zoo
from registry import entry, names
from st_utils.errors import UserError
from tests.zoo.test_parts import images, missing_gradients, settled

ROOT = Path(__file__).parents[2]
SMALL = {"embed_dim": 16, "depth": 1, "num_heads": 2, "mlp_ratio": 2.0}


def small(name: str, **settings) -> torch.nn.Module:
    """A model small enough for a test: the sizes that its signature has."""
    params = entry("model", name).params
    sizes = {key: value for key, value in {**SMALL, "width": 8}.items() if key in params}
    torch.manual_seed(0)
    return zoo.create_model(name, img_size=32, step=2, **{"in_channels": 3, **sizes, **settings})


def frames(steps: int = 2, channels: int = 2) -> torch.Tensor:
    return torch.poisson(torch.full((2, steps, channels, 32, 32), 0.5), generator=torch.Generator().manual_seed(0))


def picture() -> torch.Tensor:
    return torch.nn.functional.interpolate(images(), size=32)


# BrainCog's are too many and too large for all of this: see tests/braincog/test_networks.py
MODELS = [*names("model", families=False), "braincog.SNN7_tiny", "braincog.sew_resnet18"]


@pytest.mark.parametrize("name", MODELS)
class TestEveryModel:
    def test_images_and_frames(self, name):
        assert small(name)(picture()).shape == (2, 10)
        model = small(name, in_channels=2, num_classes=7)
        assert model(frames()).shape == (2, 7)

    def test_the_steps_average_to_the_logits(self, name):
        model = small(name, in_channels=2).eval()
        with torch.no_grad():
            per_step = model(frames(), per_step=True)
            assert per_step.shape == (2, 2, 10)
            torch.testing.assert_close(per_step.mean(0), model(frames()))

    def test_every_parameter_gets_a_finite_gradient(self, name):
        model = small(name)
        model(picture()).square().sum().backward()
        assert missing_gradients(model) == []

    def test_eval_is_deterministic_and_batch_invariant(self, name):
        x = picture().double()
        model = settled(small(name).double(), x)
        with torch.no_grad():
            first = model(x)
            assert torch.equal(first, model(x))
            torch.testing.assert_close(first, torch.cat([model(x[:1]), model(x[1:])]), rtol=0, atol=1e-9)

    def test_state_dict_round_trip(self, name):
        model, other = small(name).eval(), small(name)
        with torch.no_grad():
            for p in other.parameters():
                p.add_(1)
            other.load_state_dict(model.state_dict())
            assert torch.equal(model(picture()), other.eval()(picture()))

    def test_its_specs_build_it_again(self, name):
        model = small(name, num_classes=3)
        shapes = {key: value.shape for key, value in model.state_dict().items()}
        for spec in (model.spec, model.full_spec):
            again = zoo.create_model(spec)
            assert again.spec == model.spec
            assert {key: value.shape for key, value in again.state_dict().items()} == shapes

    def test_its_entry_says_what_it_is_and_where_from(self, name):
        assert entry("model", name).doc
        assert entry("model", name).source


SIZES = re.findall(r"^\| `(.+?)` \| .+? \| ([0-9,]+) \|", (ROOT / "docs" / "published.md").read_text(), re.MULTILINE)


def test_the_page_has_its_rows():
    assert len(SIZES) >= 70


@pytest.mark.parametrize(("spec", "parameters"), SIZES)
def test_parameter_counts_of_published_sizes(spec, parameters):
    """Every row of docs/published.md; the figures come from the authors' classes, not from ours."""
    with torch.device("meta"):
        model = zoo.create_model(spec)
    assert f"{sum(p.numel() for p in model.parameters()):,}" == parameters


@pytest.mark.parametrize("name", [name for name in names("model", families=False) if name != "vit"])
def test_the_listing_says_the_parameter_count_of_a_published_size_or_of_the_default(name):
    (said,) = re.findall(r"([\d,]+) parameters", entry("model", name).doc)
    with torch.device("meta"):
        built = [zoo.create_model(name, num_classes=classes) for classes in (10, 1000)]
    counts = {f"{sum(p.numel() for p in model.parameters()):,}" for model in built}
    assert said in counts | {count for spec, count in SIZES if re.match(rf"{name}\b", spec)}


def test_a_surrogate_goes_into_the_models_node():
    assert zoo.create_model("spikformer", surrogate="atan(alpha=3)", **SMALL).spec.endswith(
        "node=lif(surrogate=atan(alpha=3.0)), num_heads=2)"
    )


def test_frames_that_do_not_number_step_are_refused():
    with pytest.raises(UserError, match="4 frames and the model step=2"):
        small("spikformer", in_channels=2)(frames(4))


def test_drop_path_drops_whole_samples_at_all_steps():
    model = small("spikformer", drop_path=0.9, depth=2)
    drop = model.blocks[1].attention.drop_path.train()
    torch.manual_seed(0)
    dropped = drop(torch.ones(4, 200, 3))
    kept = (dropped != 0).flatten(2).any(-1)
    assert torch.equal(kept, kept[:1].expand(4, -1))
    assert 5 < kept[0].sum() < 45
    assert dropped.max() == pytest.approx(10)


def test_published_weights_are_taken_strictly():
    model = small("sdt")
    with pytest.raises(UserError, match="nothing for embedding"):
        zoo.load_published(model, {})
    with pytest.raises(UserError, match="head.extra has no place here"):
        zoo.load_published(model, {"head.extra": torch.zeros(1)})
    with pytest.raises(UserError, match=r"head.weight is \[3, 3\], head.weight is \[10, 16\]"):
        zoo.load_published(model, {"head.weight": torch.zeros(3, 3)})
    with pytest.raises(UserError, match="ViT has no published weights"):
        zoo.load_published(small("vit"), {})
