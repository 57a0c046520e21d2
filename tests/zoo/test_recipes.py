"""Every recipe is one that main.py can run: its settings exist, and its model builds."""

from __future__ import annotations

import pytest
import torch

import main
import zoo
from registry import canonical, entry, names
from st_utils.training.settings import read_yaml
from zoo.recipe import FOLDER, find_recipe, recipe_names


@pytest.mark.parametrize("recipe", recipe_names())
def test_recipe(recipe):
    assert read_yaml(FOLDER / f"{recipe}.yml")["source"], "a recipe says where its settings stand"
    *model, dataset = recipe.split("_")
    assert dataset in names("dataset")
    name = "_".join(model) if "_".join(model) in names("model") else "sdt" if model == ["statten"] else "spikformer"
    settings, found = main.resolve({"model": name, "dataset": dataset, "recipe": recipe, "device": "cpu"})
    assert found == recipe
    with torch.device("meta"):
        model = zoo.create_model(settings.model)
    assert model.spec == str(canonical("model", settings.model))


def test_the_models_own_recipe_comes_first():
    assert find_recipe("spikformer", "cifar10")[0] == "spikformer_cifar10"
    assert find_recipe("spikformer", "digits")[0] == "digits"
    assert find_recipe("spikformer", "digits", "none") == ("none", {})
    assert find_recipe("vit", "imnet")[0] == "none"


def test_published_sizes_from_recipes():
    """The recipes' ImageNet models are the papers' 8-512."""
    for recipe, parameters in (("spikformer_imnet", 29_689_384), ("sdt_imnet", 29_689_896 - 8 * 64)):
        model = recipe.split("_")[0]
        settings, _ = main.resolve({"model": model, "dataset": "imnet", "device": "cpu"})
        with torch.device("meta"):
            built = zoo.create_model(settings.model, num_classes=1000)
        assert sum(p.numel() for p in built.parameters()) == parameters
        assert "embed_dim" in entry("model", model).params
