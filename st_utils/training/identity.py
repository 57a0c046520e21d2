"""What a run is: its specs with every argument spelled out, its data, its plug-ins, its settings and its seed.

    record = recorded_facts(settings, data)      # in checkpoints, args.yml and summary.json
    differences(folder.args, identity(settings, record), settings)
    # {} for the same run; {'data': 'data (the same counts, other contents)'}

Two runs are the same when their specs mean the same, however they are written and whatever the defaults were, and
when digests of data and plug-ins are equal. What an older version did not record is taken as its default.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import registry
from registry import Spec, SpecError, parse
from st_utils.data import DataSet, data_identity
from st_utils.training.settings import Settings

logger = logging.getLogger("zoo")

FROM_DATA = ("num_classes", "in_channels", "img_size")  # arguments of a model that the data set decides
PLACES = ("data_dir", "cache_dir", "download")  # arguments of a data set that say where it lies, not what it is
FULL = {"model": "full_spec", "dataset": "full_dataset"}


def recorded_facts(settings: Settings, data: DataSet) -> dict[str, Any]:
    """`spec`, `full_spec`, `dataset`, `full_dataset`, `data` (see `data_identity`) and `plugins` (name -> digest)."""
    side = settings.img_size or data.img_size
    params = registry.entry("model", settings.model).params
    given = {"num_classes": data.num_classes, "in_channels": data.in_channels, "img_size": side}
    model = parse(settings.model).replace(**{name: value for name, value in given.items() if name in params})
    full = registry.full("model", model)
    dataset = full_dataset(settings)
    return {
        "spec": settings.model,
        "full_spec": str(full),
        "dataset": settings.dataset,
        "full_dataset": str(dataset),
        "data": data_identity(data),
        "plugins": registry.plugin_digests(f"{full} {dataset}"),
    }


def full_dataset(settings: Settings) -> Spec:
    """The data set's spec with every argument but those that the settings decide, such as the steps of event frames."""
    full, written = registry.full("dataset", settings.dataset), parse(settings.dataset).args
    sized = ("event_size",) if settings.event_size or settings.img_size else ()
    decided = {"step", *PLACES, *sized} - set(written)
    return _without(full, decided)


def identity(settings: Settings, record: Mapping[str, Any]) -> dict[str, Any]:
    """What determines a run's result, in plain values."""
    return {**settings.identity(), **{name: record[name] for name in (*FULL.values(), "data", "plugins")}}


def as_made(kind: str, short: str, full: str, decided: Iterable[str] = ()) -> Spec:
    """The spec that builds now what `short` built when its full spec was `full`: `short`, while no default changed.

    What data set and settings have `decided` stays open.
    """
    written, decided = parse(short), {*decided, *(FROM_DATA if kind == "model" else ())}
    changes = changed_defaults(kind, short, full, decided)
    if not changes:
        return written
    changes = ", ".join(changes)
    logger.warning("defaults of %s have changed since the run was made: it keeps its own (%s)", written.name, changes)
    return _without(registry.canonical(kind, full), decided - set(written.args))


def changed_defaults(kind: str, short: str, full: str, decided: Iterable[str] = FROM_DATA) -> list[str]:
    """`node.tau=2.0, now 1.8` for every argument that `short` leaves open and that had another value in `full`.

    Arguments that data set and settings have `decided` are left out.
    """
    made = registry.full(kind, full)
    now = parse(short).replace(**{name: made.args[name] for name in decided if name in made.args})
    return _changes(made, registry.full(kind, now))


def says_nothing_else(kind: str, typed: Spec, full: str) -> bool:
    """Whether every argument that is written in a spec has the value that the recorded full spec has."""

    def agrees(written: Spec, now: Spec, made: Spec) -> bool:
        for name, value in written.args.items():
            new, old = now.args[name], made.args.get(name)
            if isinstance(new, Spec) and isinstance(old, Spec) and isinstance(value, Spec):
                if new.name != old.name or not agrees(value, new, old):
                    return False
            elif Spec("value", {"of": new}) != Spec("value", {"of": old}):
                return False
        return True

    return agrees(typed, registry.full(kind, typed), parse(full))


def differences(args: Mapping[str, Any], wanted: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    """What is otherwise in the run whose args.yml this is than in the wanted identity, in words, by name.

    A checkpoint's record will do for `args`. Data that an older version did not record are taken for the same where
    they come from the same --data-dir; see `unrecorded`.
    """
    recorded = {**args, **args.get("identity", {})}
    found = {kind: text for kind in FULL if (text := _spec_difference(kind, recorded, wanted))}
    known = {}
    for setting in fields(Settings):
        if setting.metadata["result"] and setting.name not in FULL:
            default = setting.default if setting.default is not MISSING else None
            known[setting.name] = recorded.get(setting.name, default)
            if _text(known[setting.name]) != _text(wanted[setting.name]):
                found[setting.name] = f"{setting.name}={known[setting.name]!r}"
    further = {name: value for name, value in args.get("identity", {}).items() if name not in {*known, *wanted}}
    for name, value in further.items():
        if value is not None:
            found[name] = f"{name}={value!r}, a setting that this version does not have"
    return {**found, **_data_difference(recorded, wanted, settings), **_plugin_difference(recorded, wanted)}


def unrecorded(args: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Which of data and plug-ins an older version did not record, so that nobody can tell whether they are the same."""
    recorded = {**args, **args.get("identity", {})}
    plugins = wanted["plugins"] or recorded.get("plugin")
    return [
        *(["data"] if recorded.get("data") is None else []),
        *(["plug-ins"] if plugins and recorded.get("plugins") is None else []),
    ]


def _spec_difference(kind: str, recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """How a spec differs in meaning: in words, or empty."""
    short, full, name = recorded.get(kind, recorded.get("spec")), recorded.get(FULL[kind]), FULL[kind]
    if full is None:  # an older version's
        return "" if short == wanted[kind] else f"{kind}={short!r}"
    try:
        made, now = (_without(registry.full(kind, text), set(PLACES)) for text in (full, wanted[name]))
    except SpecError:  # a part or an argument that is there no more
        return f"{kind}={short!r}, which can't be built now"
    changes = ", ".join(_changes(made, now))
    if not changes:
        return ""
    return f"defaults of {kind} ({changes})" if short == wanted[kind] else f"{kind}={short!r} ({changes})"


def _changes(made: Spec, now: Spec, place: str = "") -> list[str]:
    """`node.tau=2.0, now 1.8` for every argument that differs."""
    if made.name != now.name:
        return [f"{place.rstrip('.') or 'name'}={made.name}, now {now.name}"]
    found = []
    for name in sorted({*made.args, *now.args}):
        old, new = (spec.args.get(name, "absent") for spec in (made, now))
        if isinstance(old, Spec) and isinstance(new, Spec):
            found += _changes(old, new, f"{place}{name}.")
        elif Spec("value", {"of": old}) != Spec("value", {"of": new}):
            found.append(f"{place}{name}={_shown(old)}, now {_shown(new)}")
    return found


def _data_difference(recorded: Mapping[str, Any], wanted: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    old, new = recorded.get("data"), wanted["data"]
    if old is None:
        embedded = "data_dir" not in registry.entry("dataset", settings.dataset).params
        place = recorded.get("data_dir")
        if embedded or place is None or _resolved(place) == _resolved(settings.data_dir):
            return {}
        return {"data": f"data (not recorded by the version that made it; from --data-dir {place})"}
    if old["digest"] == new["digest"]:
        return {}
    counts = [f"{each['train']} + {each['test']} images of {each['classes']} classes" for each in (old, new)]
    text = f"{counts[0]}, now {counts[1]}" if counts[0] != counts[1] else "the same counts, other contents"
    return {"data": f"data ({text})"}


def _plugin_difference(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, str]:
    old, new = recorded.get("plugins"), wanted["plugins"]
    if old is None or sorted(old.values()) == sorted(new.values()):  # a file may have been renamed
        return {}
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return {"plugins": f"the contents of plug-in {', '.join(names)}"}


def _without(spec: Spec, names: set[str]) -> Spec:
    return Spec(spec.name, {name: value for name, value in spec.args.items() if name not in names})


def _resolved(place: str) -> Path:
    return Path(place).expanduser().resolve()


def _shown(value: Any) -> str:
    return str(Spec("value", {"of": value}))[len("value(of=") : -1]


def _text(value: Any) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value, sort_keys=True)  # tells 1 from 1.0 and true
