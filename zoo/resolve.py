"""What a run was told, made complete: its keywords as plain values, its plug-ins, its settings and its recipe.

    from zoo.resolve import resolve

    settings, recipe = resolve({"model": "sdt", "dataset": "digits", "epochs": 3})
    settings.lr, recipe  # (0.003, 'digits')
    settings.model  # 'sdt(depth=2, embed_dim=64, mlp_ratio=2.0, num_heads=4)'

Settings come from what was typed, else from the --config file, else from the run that is gone on with or the recipe,
else they have their defaults.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

import registry
import zoo
from registry import Spec, nearest
from st_utils.errors import UserError
from st_utils.training.distributed import device_of
from st_utils.training.resume import dataset_as_recorded, recorded_args, recorded_settings, spec_as_recorded
from st_utils.training.settings import Settings, checked
from zoo.authors.translate import joined, split_file, with_arguments
from zoo.recipe import fill, find_recipe, meant_for

logger = logging.getLogger("zoo")


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords as the command line would have them: paths and specs as text, numpy's numbers as Python's.

    Raises UserError for a name that is no setting.
    """
    known = [*(f.name for f in fields(Settings)), *registry.PART_KINDS]
    for name in settings:
        if name not in known:
            raise UserError(f"zoo.run: unknown setting {name!r}{nearest(name, known)}")
    plain = {name: _plain(value) for name, value in settings.items()}
    if isinstance(plain.get("plugin"), str):
        plain["plugin"] = [plain["plugin"]]
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Spec):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def load_plugins(given: Mapping[str, Any]) -> None:
    """Load the plug-ins in the settings, and those of installed packages."""
    for plugin in given.get("plugin", ()):
        registry.load_plugin(plugin)
    registry.load_entry_points()


def resolve(given: Mapping[str, Any], origin: str = "command line") -> tuple[Settings, str]:
    """The settings of a run, its model spec complete and canonical, and the name of its recipe."""
    given = dict(given)
    words = given.pop("words", {})
    overrides = {part: given.pop(part) for part in registry.PART_KINDS if part in given}
    written, file_words = split_file(given["config"]) if given.get("config") else ({}, {})
    written = checked(written, given["config"]) if written else {}
    found = joined(words, checked(given, origin), file_words, written, overrides)
    typed = checked(found.settings, origin)
    for line in found.notes:
        logger.info("%s", line)
    given |= {name: typed[name] for name in ("resume", "eval") if name in typed and name not in written}
    args, recorded_in = recorded_args(given.get("resume"))
    recorded = checked(recorded_settings(args, recorded_in, given), recorded_in)
    for plugin in (*recorded.get("plugin", ()), *written.get("plugin", ())):
        registry.load_plugin(plugin)
    chosen = {**recorded, **typed}
    meant = meant_for(chosen["recipe"]) if (chosen.get("recipe") or "none") != "none" and not recorded else {}
    base = Settings(**{**meant, **chosen})
    overrides |= {"step": base.step} if base.step else {}

    def change(spec: Spec) -> Spec:
        return zoo.override(with_arguments(spec, found.arguments), **overrides)

    specs = {
        "model": spec_as_recorded("model", base.model, args, "model" in typed, change),
        "dataset": dataset_as_recorded(base.dataset, args, typed),
    }
    model, dataset = (registry.entry(kind, spec).name for kind, spec in specs.items())
    source = base.source and registry.entry("dataset", base.source).name
    recipe, content = (base.recipe, {}) if recorded else find_recipe(model, dataset, base.recipe, source)
    filling = {kind: content.pop(kind, {}) for kind in ("model", "dataset")}
    settings = Settings(**{**checked(content, f"recipe {recipe}"), **meant, **chosen})
    if settings.amp == "fp16" and "amp" not in chosen and device_of(settings.device).type != "cuda":
        logger.warning("amp=fp16 of recipe %s is ignored on a CPU", recipe)
        settings = replace(settings, amp="none")
    if settings.source:
        source = str(registry.canonical("dataset", settings.source))
        settings = replace(settings, source=source)
        if "transfer" in registry.entry("model", specs["model"]).params and "transfer" not in specs["model"].args:
            specs["model"] = specs["model"].replace(transfer=True)  # the heads of both domains are the model's own
    # what the recipe would fill stays written, so that the recorded spec means the same when it is typed again
    filled = {k: str(registry.canonical(k, fill(k, s, filling[k]), keep=filling[k])) for k, s in specs.items()}
    return replace(settings, **filled), recipe
