"""Recipes: the settings that a model was trained with on a data set, one readable YAML file each.

A recipe is found by name, `<model>_<dataset>` before `<dataset>`, or asked for by its name or one of its `aliases`,
such as the authors' own. Its `model` and `dataset` entries fill arguments that the specs leave open; its other
entries are settings of the run; `source` says where they stand. `like` names a recipe that it repeats, but for what
it says itself; `for` the model and data set of one that is asked for without them, where its name does not say it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from registry import Spec, entry, names, nearest, parse
from st_utils.errors import UserError
from st_utils.training.settings import read_yaml

FOLDER = Path(__file__).parent / "recipes"


@cache
def recipe_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yml"))


@cache
def recipe_aliases() -> dict[str, str]:
    """The other names of recipes."""
    return {alias: name for name in recipe_names() for alias in read_yaml(FOLDER / f"{name}.yml").get("aliases", ())}


def read_recipe(name: str) -> dict[str, Any]:
    """The content of a recipe, with that of the one it is like."""
    content = read_yaml(FOLDER / f"{name}.yml")
    base = read_recipe(content.pop("like")) if "like" in content else {}
    base.pop("aliases", None)
    return {**base, **content}


def find_recipe(model: str, dataset: str, name: str | None = None) -> tuple[str, dict[str, Any]]:
    """The name and content of the recipe asked for, or of the best that there is; ("none", {}) without one.

    model and dataset are registered names. Raises UserError for a name that no recipe has.
    """
    if name == "none":
        return "none", {}
    if name is not None:
        chosen = full_name(name)
    else:
        chosen = next((w for w in (f"{model}_{dataset}", dataset) if w in recipe_names()), None)
    if chosen is None:
        return "none", {}
    content = read_recipe(chosen)
    return chosen, {key: value for key, value in content.items() if key not in ("source", "aliases", "for")}


def full_name(name: str) -> str:
    """The name of the recipe that this name or alias means. Raises UserError when there is none."""
    known, name = [*recipe_names(), *recipe_aliases()], name.removesuffix(".yml")
    if name not in known:
        raise UserError(f"unknown recipe {name!r}{nearest(name, known)}; recipes: {', '.join(recipe_names())}, none")
    return recipe_aliases().get(name, name)


def meant_for(name: str) -> dict[str, str]:
    """The `model` and `dataset` that a recipe's file or name says it is for; {} where it says none."""
    name = full_name(name)
    if pair := read_recipe(name).get("for"):
        return {"model": pair[0], "dataset": pair[1]}
    if name in names("dataset"):
        return {"dataset": name}
    for dataset in names("dataset"):
        if name.endswith(f"_{dataset}") and name.removesuffix(f"_{dataset}") in names("model"):
            return {"model": name.removesuffix(f"_{dataset}"), "dataset": dataset}
    return {}


def fill(kind: str, spec: Spec, arguments: dict[str, Any]) -> Spec:
    """The spec with what it leaves open taken from a recipe's entry of this kind, where the part has it."""
    params = entry(kind, spec).params
    open_ones = {k: v for k, v in arguments.items() if k in params and k not in spec.args}
    return spec.replace(**{k: parse(v) if params[k].nested else v for k, v in open_ones.items()})
