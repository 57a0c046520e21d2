"""Recipes: the settings that a model was trained with on a data set, one readable YAML file each.

name, content = find_recipe("sdt", "cifar10")  # "sdt_cifar10", {"model": {"embed_dim": 512, ...}, "epochs": 310, ...}
read_recipe("sdt_cifar10").source              # where its settings stand
full_name("conf/cifar10/2_512_300E_t4")        # "sdt_cifar10", by the authors' name

A recipe is found by name, `<model>_<dataset>` before `<dataset>`, or asked for by its name or one of its aliases. For
transfer learning `<model>_<source>_<dataset>` and `<source>_<dataset>` come first.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from registry import Spec, entry, names, nearest, parse
from st_utils.errors import UserError
from st_utils.training.settings import checked
from st_utils.training.validation import read_yaml, validated

FOLDER = Path(__file__).parent / "recipes"


class Recipe(BaseModel):
    """What a recipe's file says. All other keys of the file are `settings` of the run, checked like main.py's.

    Attributes:
        source: where the settings stand.
        aliases: other names of the recipe, such as the authors' own.
        like: a recipe that it repeats, but for what it says itself.
        meant_for: (model, data set), written `for`, where the file's name does not say them; of a recipe of transfer
            learning (model, data set, source).
        model, dataset: arguments for those that the specs leave open.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(min_length=1)
    aliases: tuple[str, ...] = ()
    like: str | None = None
    meant_for: Annotated[tuple[str, ...], Field(min_length=2, max_length=3)] | None = Field(None, alias="for")
    model: dict[str, Any] = {}
    dataset: dict[str, Any] = {}
    settings: dict[str, Any] = {}


KEYS = {field.alias or name for name, field in Recipe.model_fields.items()} - {"settings"}


@cache
def recipe_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yml"))


@cache
def recipe_aliases() -> dict[str, str]:
    """The other names of recipes."""
    return {alias: name for name in recipe_names() for alias in read_recipe(name).aliases}


def read_recipe(name: str) -> Recipe:
    """A recipe, with what it takes from the one that it is like. Raises UserError for what its file says wrongly."""
    origin, content = f"recipe {name}", _content(name)
    settings = {key: value for key, value in content.items() if key not in KEYS}
    own = {key: value for key, value in content.items() if key in KEYS}
    return validated(Recipe, {**own, "settings": checked(settings, origin, further=KEYS)}, origin)


def _content(name: str, *likes: str) -> dict[str, Any]:
    """A file's content over that of the recipe that it is like; `likes` have led here."""
    content = read_yaml(FOLDER / f"{name}.yml")
    if "like" not in content:
        return content
    if (like := content["like"]) not in recipe_names() or like in (name, *likes):
        near = nearest(str(like), recipe_names())
        raise UserError(f"recipe {name}: like takes the name of another recipe, not {like!r}{near}")
    return {**_content(like, name, *likes), "aliases": (), **content}


def find_recipe(
    model: str, dataset: str, name: str | None = None, source: str | None = None
) -> tuple[str, dict[str, Any]]:
    """The name and content of the recipe asked for, or of the best that there is; ("none", {}) without one.

    Args:
        model, dataset: registered names.
        name: of the recipe asked for.
        source: the data set of images that transfer learning starts from, a registered name.

    Returns:
        The content: `model` and `dataset`, arguments of each, and settings by name.

    Raises:
        UserError: no recipe has this name, or its file says something wrong.
    """
    if name is None:
        pairs = (f"{model}_{source}_{dataset}", f"{source}_{dataset}") if source else ()
        name = next((w for w in (*pairs, f"{model}_{dataset}", dataset) if w in recipe_names()), "none")
    if name == "none":
        return "none", {}
    recipe = read_recipe(name := full_name(name))
    return name, {"model": recipe.model, "dataset": recipe.dataset, **recipe.settings}


def full_name(name: str) -> str:
    """The name of the recipe that this name or alias means. Raises UserError when there is none."""
    known, name = [*recipe_names(), *recipe_aliases()], name.removesuffix(".yml")
    if name not in known:
        raise UserError(f"unknown recipe {name!r}{nearest(name, known)}; recipes: {', '.join(recipe_names())}, none")
    return recipe_aliases().get(name, name)


def meant_for(name: str) -> dict[str, str]:
    """The `model`, `dataset` and `source` that a recipe's file or name says it is for; {} where it says none."""
    name = full_name(name)
    if pair := read_recipe(name).meant_for:
        return dict(zip(("model", "dataset", "source"), pair, strict=False))
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
