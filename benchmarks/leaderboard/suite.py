"""Suites: YAML files that say which runs to compare.

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
from typing import Any

import zoo
from benchmarks.leaderboard.rules import run_settings, seed_numbers, suite_seeds
from registry import PART_KINDS, SpecError, canonical, create, entry, full, nearest, plugin_digest, plugin_serves
from st_utils.data import data_identity
from st_utils.errors import UserError
from st_utils.training.launch import model_step
from st_utils.training.settings import read_yaml
from zoo.recipe import fill, find_recipe

FOLDER = Path(__file__).parents[1] / "suites"
SUITE_KEYS = ("about", "dataset", "recipe", "seeds", "settings", "entries")
ENTRY_KEYS = ("model", "label", "dataset", "recipe", "settings", "source", *PART_KINDS)


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
    _known(content, SUITE_KEYS, str(path))
    common = {"dataset": content.get("dataset"), "recipe": content.get("recipe")}
    shared = run_settings(content.get("settings"), str(path))
    seeds = seed_numbers(list(seeds), "seeds") if seeds is not None else suite_seeds(content, path)
    entries = content.get("entries") or []
    if not isinstance(entries, list):
        raise UserError(f"{path}: entries are {entries!r}: write a list, such as [spikformer]")
    runs = {}
    for written in [*entries, *further]:
        for one in _expand(written, str(path)):
            for seed in seeds:
                run = _run({**common, **one}, shared, seed, plugins, str(path), places or {})
                runs.setdefault(run.key, run)
    if not runs:
        raise UserError(f"{path} has no entries")
    return list(runs.values())


def _known(content: Mapping[str, Any], keys: tuple[str, ...], origin: str) -> None:
    for key in content:
        if key not in keys:
            raise UserError(f"{origin}: unknown key {key!r}{nearest(str(key), keys)}; keys: {', '.join(keys)}")


def _expand(written: str | Mapping[str, Any], origin: str) -> Iterator[dict[str, Any]]:
    """The entries that one stands for: each combination of the values in its lists."""
    if not isinstance(written, Mapping):
        written = {"model": written}
    _known(written, ENTRY_KEYS, origin)
    if "model" not in written:
        raise UserError(f"{origin}: an entry has no model: {dict(written)}")
    lists = {k: v for k, v in written.items() if k in ("model", *PART_KINDS) and isinstance(v, list)}
    for values in product(*lists.values()):
        yield {**written, **dict(zip(lists, values, strict=True))}


def _run(
    one: Mapping[str, Any],
    shared: Mapping[str, Any],
    seed: int,
    plugins: tuple[str, ...],
    origin: str,
    places: Mapping[str, Any],
) -> Run:
    if not one.get("dataset"):
        raise UserError(f"{origin}: {one['model']} has no dataset")
    settings = {**shared, **run_settings(one.get("settings"), origin)}
    step = settings.pop("step", None)
    parts = {part: str(one[part]) for part in PART_KINDS if part in one}
    spec = zoo.override(str(one["model"]), **parts, **({"step": step} if step is not None else {}))
    model, dataset = entry("model", spec).name, canonical("dataset", str(one["dataset"]))
    recipe, content = find_recipe(model, dataset.name, one.get("recipe"))
    label = one.get("label") or str(canonical("model", spec))
    spec, dataset = (
        canonical(kind, fill(kind, each, content.get(kind, {})), keep=content.get(kind, {}))
        for kind, each in (("model", spec), ("dataset", dataset))
    )
    texts = f"{full('model', spec)} {full('dataset', dataset)}"
    needed = tuple(plugin for plugin in plugins if plugin_serves(plugin, texts))
    data = _data_digest(str(spec), str(dataset), {**settings, **places})
    return Run(str(spec), str(dataset), recipe, seed, settings, needed, label, data)
