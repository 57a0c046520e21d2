"""Suites: YAML files that say which runs to compare.

    [run.label for run in load_suite("smoke", seeds=[0])]   # "spikformer(attention=ssa)", ...
    load_suite("mine.yml")                                  # a file of one's own:

    about: one line
    dataset: digits              # this, recipe and settings may stand in an entry too
    recipe: digits               # optional; the model's and data set's own otherwise
    seeds: [0, 1, 2]
    settings: {epochs: 8}        # further settings of main.py that change a result, named as in its --help
    entries:
      - spikformer                                           # a spec
      - {model: sdt, attention: [sdsa, statten], label: ...} # a list means one run for each of its values

A setting `step` becomes part of the spec, which it would override.
The parts `attention`, `embedding`, `mlp`, `node`, `surrogate` and `encoder` override those of the spec.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, create_model

import zoo
from benchmarks.leaderboard.rules import run_settings, seed_numbers, suite_seeds
from registry import PART_KINDS, SpecError, canonical, create, entry, full, nearest, plugin_digest, plugin_serves
from st_utils.data import data_identity
from st_utils.errors import UserError
from st_utils.training.launch import model_step
from st_utils.training.validation import read_yaml, validated
from zoo.recipe import fill, find_recipe

FOLDER = Path(__file__).parents[1] / "suites"
CONFIG = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)  # a label may be 2026
TEXT = {"type": "string"}
Texts = Annotated[
    tuple[str, ...],
    Field(min_length=1),
    BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
    WithJsonSchema({"anyOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1}]}),
]
Parts = create_model("Parts", __config__=CONFIG, **dict.fromkeys(PART_KINDS, (Texts | None, None)))


class Entry(Parts):
    """One entry of a suite: a run for each combination of its models and parts, and for each seed.

    Attributes:
        model: specs.
        attention, embedding, ...: specs in place of the model's own parts, one field per kind of part.
        label: the row's name in the table.
        dataset, recipe: in place of the suite's.
        settings: beside the suite's, over them; what they may be: see `run_settings`.
        source: where the figure to compare with stands.
    """

    model: Texts
    label: str | None = None
    dataset: str | None = None
    recipe: str | None = None
    settings: Any = None
    source: str | None = None

    def combinations(self) -> Iterator[tuple[str, dict[str, str]]]:
        """A model's spec and its parts by kind, for each combination of the values."""
        written = {kind: values for kind in PART_KINDS if (values := getattr(self, kind))}
        for model, *parts in product(self.model, *written.values()):
            yield model, dict(zip(written, parts, strict=True))


class Suite(BaseModel):
    """What a suite's file says; its entries are each an `Entry`, or the spec of one."""

    model_config = CONFIG

    about: str | None = None
    dataset: str | None = None
    recipe: str | None = None
    seeds: list[int]
    settings: Any = None
    entries: list[Any] = []


@dataclass(frozen=True)
class Run:
    """One training run: what identifies it, and what it is called in the table.

    Attributes:
        spec, dataset: canonical texts; the spec is filled by the recipe.
        recipe: the name of the recipe, or "none".
        settings: further settings, by name.
        plugins: those files or modules that register parts of the spec, as far as it needs them.
        label: a short name: the spec as it was written, before the recipe filled it, where the suite gives none.
        data: the digest of the data set's files; None where it has none, or they can't be read here.
    """

    spec: str
    dataset: str
    recipe: str
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    label: str | None = None
    data: str | None = None

    @property
    def row(self) -> str:
        """Names the row of the table: the run without its seed (12 hex digits)."""
        return _digest({k: v for k, v in self._identity().items() if k != "seed"})

    @property
    def key(self) -> str:
        """Names the run: equal keys mean the same result (12 hex digits)."""
        return _digest(self._identity())

    def _identity(self) -> dict[str, Any]:
        plugins = [plugin_digest(plugin) for plugin in self.plugins]
        data = {"data": self.data} if self.data else {}  # as a key was before data were part of it
        return {k: v for k, v in asdict(self).items() if k not in ("label", "data")} | {"plugins": plugins} | data

    @property
    def key_without_data(self) -> str:
        """The key that the run had while its data could not be read, or in a version that left them out."""
        return replace(self, data=None).key

    def arguments(self) -> list[str]:
        """The arguments of main.py that do this run."""
        words = ["--model", self.spec, "--dataset", self.dataset, "--recipe", self.recipe, "--seed", str(self.seed)]
        for plugin in self.plugins:
            words += ["--plugin", plugin]
        return words + option_words(self.settings)


def option_words(settings: Mapping[str, Any]) -> list[str]:
    """Settings as main.py's command line takes them, by name."""
    words = []
    for name, value in sorted(settings.items()):
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", json.dumps(value) if isinstance(value, (list, tuple)) else str(value)]
    return words


def _digest(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def _data_digest(spec: str, dataset: str, settings: Mapping[str, Any]) -> str | None:
    """The digest of the files that a run with these settings reads; see `Run.data`."""
    if "data_dir" not in entry("dataset", dataset).params:  # embedded: part of the program
        return None
    size = settings.get("event_size") or settings.get("img_size")
    places = settings.get("data_dir") or "data", bool(settings.get("download"))
    return _digest_at(dataset, *places, model_step(spec), size)


@cache
def _digest_at(dataset: str, data_dir: str, download: bool, step: int, size: int | None) -> str | None:
    """That, read once for all runs; event frames are not cached, for the digest is of their recordings."""
    offer = {"data_dir": data_dir, "download": download, "step": step, **({"event_size": size} if size else {})}
    try:
        return data_identity(create("dataset", dataset, **offer, cache_dir="none"))["digest"]
    except (UserError, SpecError):  # the run itself fails of this, and says so in the table
        return None


def suite_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yml"))


def load_suite(
    name: str,
    seeds: list[int] | None = None,
    plugins: tuple[str, ...] = (),
    further: Sequence[str] = (),
    places: Mapping[str, Any] | None = None,
) -> list[Run]:
    """The runs of a suite, of this project or in a file of one's own, in order.

    Args:
        seeds: instead of the suite's.
        plugins: files or modules that register parts of the entries; they are loaded by now.
        further: specs that join the suite's entries.
        places: settings that say where the data are, `data_dir` and `download`: their digests are in the runs' keys.

    Raises:
        UserError, SpecError: what the file says wrongly, in one line.
    """
    path = Path(name) if name.endswith((".yml", ".yaml")) else FOLDER / f"{name}.yml"
    if not path.is_file():
        known = suite_names()
        raise UserError(f"unknown suite {name!r}{nearest(name, known)}; suites: {', '.join(known)}, or a file.yml")
    content = read_yaml(path)
    content["entries"] = content.get("entries") or []
    content["seeds"] = seed_numbers(list(seeds), "seeds") if seeds is not None else suite_seeds(content, path)
    suite = validated(Suite, content, str(path))
    shared = {"dataset": suite.dataset, "recipe": suite.recipe}
    settings = run_settings(suite.settings, str(path))
    runs = {}
    for number, value in enumerate([*suite.entries, *further], 1):
        origin = f"{path}: entry {number}"
        written = validated(Entry, value if isinstance(value, Mapping) else {"model": value}, origin)
        own = written.model_dump(include=set(shared), exclude_unset=True)  # `recipe: null` is the model's own
        own["settings"] = {**settings, **run_settings(written.settings, origin)}
        one = written.model_copy(update={**shared, **own})
        if not one.dataset:
            raise UserError(f"{origin} has no dataset")
        for model, parts in one.combinations():
            for seed in suite.seeds:
                run = _run(one, model, parts, seed=seed, plugins=plugins, places=places or {})
                runs.setdefault(run.key, run)
    if not runs:
        raise UserError(f"{path} has no entries")
    return list(runs.values())


def _run(
    one: Entry, model: str, parts: dict[str, str], *, seed: int, plugins: tuple[str, ...], places: Mapping[str, Any]
) -> Run:
    """The run of this model with these parts, with what else the entry says."""
    settings = dict(one.settings)
    step = settings.pop("step", None)
    spec = zoo.override(model, **parts, **({"step": step} if step is not None else {}))
    dataset = canonical("dataset", one.dataset)
    recipe, content = find_recipe(entry("model", spec).name, dataset.name, one.recipe)
    label = one.label or str(canonical("model", spec))
    spec, dataset = (
        canonical(kind, fill(kind, each, content.get(kind, {})), keep=content.get(kind, {}))
        for kind, each in (("model", spec), ("dataset", dataset))
    )
    texts = f"{full('model', spec)} {full('dataset', dataset)}"
    needed = tuple(plugin for plugin in plugins if plugin_serves(plugin, texts))
    data = _data_digest(str(spec), str(dataset), {**settings, **places})
    return Run(str(spec), str(dataset), recipe, seed, settings, needed, label, data)
