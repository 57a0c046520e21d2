"""Recipes: the settings that a model was trained with on a data set, one readable YAML file each.

A recipe is found by name, `<model>_<dataset>` before `<dataset>`. Its `model` entry fills arguments that the
spec leaves open; its other entries are settings of the run; `source` says where they stand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from registry import Spec, entry, nearest, parse
from st_utils.errors import UserError
from st_utils.training.settings import read_yaml

FOLDER = Path(__file__).parent / "recipes"


def recipe_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yml"))


def find_recipe(model: str, dataset: str, name: str | None = None) -> tuple[str, dict[str, Any]]:
    """The name and content of the recipe asked for, or of the best that there is; ("none", {}) without one.

    model and dataset are registered names. Raises UserError for a name that no recipe has.
    """
    if name == "none":
        return "none", {}
    known = recipe_names()
    if name is not None and name not in known:
        raise UserError(f"unknown recipe {name!r}{nearest(name, known)}; recipes: {', '.join(known)}, none")
    wanted = [name] if name else [f"{model}_{dataset}", dataset]
    chosen = next((w for w in wanted if w in known), None)
    if chosen is None:
        return "none", {}
    content = read_yaml(FOLDER / f"{chosen}.yml")
    content.pop("source", None)
    return chosen, content


def fill(spec: Spec, arguments: dict[str, Any]) -> Spec:
    """The spec with what it leaves open taken from a recipe's `model` entry, where the model has it."""
    params = entry("model", spec).params
    open_ones = {k: v for k, v in arguments.items() if k in params and k not in spec.args}
    return spec.replace(**{k: parse(v) if params[k].nested else v for k, v in open_ones.items()})
