"""The identity of a run: its full specs, data, plug-ins, settings and seed; and how two runs differ.

    record = recorded_facts(settings, data)      # in checkpoints, args.yml and summary.json
    differences(folder.args, identity(settings, record), settings)
    # {} for the same run; {'data': 'data (the same counts, other contents)'}

Two runs are the same if their full specs (with every argument, defaults too), their settings, and the digests of data
and plug-ins are equal. A setting that an older version did not record counts as its default.
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

FROM_DATA = ("num_classes", "in_channels", "img_size")  # a model's arguments that the data set decides
PLACES = ("data_dir", "cache_dir", "download")  # a data set's arguments that say where it lies, not what it is
FACTS = ("full_spec", "full_dataset", "data", "full_source", "source_data", "plugins")  # beside settings
FULL = {"model": "full_spec", "dataset": "full_dataset"}


def recorded_facts(settings: Settings, data: DataSet, source: DataSet | None = None) -> dict[str, Any]:
    """What a run is made of, by name.

    `spec`, `full_spec`, `dataset`, `full_dataset`, `data` (see `data_identity`), of a run with --source the
    `full_source` and `source_data` likewise, else None, and `plugins`: the digests of plug-ins
    by file or module, and of the code of parts that a script or a notebook registered, as `attention mine`.
    """
    side = settings.img_size or data.img_size
    params = registry.entry("model", settings.model).params
    given = {"num_classes": data.num_classes, "in_channels": data.in_channels, "img_size": side}
    model = parse(settings.model).replace(**{name: value for name, value in given.items() if name in params})
    full = registry.full("model", model)
    dataset = full_dataset(settings, settings.dataset)
    images = full_dataset(settings, settings.source) if settings.source else None
    return {
        "spec": settings.model,
        "full_spec": str(full),
        "dataset": settings.dataset,
        "full_dataset": str(dataset),
        "data": data_identity(data),
        "full_source": str(images) if images else None,
        "source_data": data_identity(source) if source else None,
        "plugins": {
            **registry.plugin_digests(f"{full} {dataset} {images or ''}"),
            **registry.part_digests(("model", full), *(("dataset", each) for each in (dataset, images) if each)),
        },
    }


def full_dataset(settings: Settings, spec: str) -> Spec:
    """A data set's spec with every argument, except those that settings decide, such as the steps of event frames."""
    full, written = registry.full("dataset", spec), parse(spec).args
    sized = ("event_size",) if settings.event_size or settings.img_size else ()
    decided = {"step", *PLACES, *sized} - set(written)
    return _without(full, decided)


def identity(settings: Settings, record: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that determines a run's result, in plain values: settings by name, full specs, data and plug-ins."""
    return {**settings.identity(), **{name: record.get(name) for name in FACTS}}


def as_made(kind: str, short: str, full: str, decided: Iterable[str] = ()) -> Spec:
    """The spec that builds today what `short` built when its full spec was `full`.

    It is `short` itself while no default has changed; else it has all arguments, and a warning names the changes.
    Arguments that the data set and the settings have `decided` are left out.
    """
    written, decided = parse(short), {*decided, *(FROM_DATA if kind == "model" else ())}
    changes = changed_defaults(kind, short, full, decided)
    if not changes:
        return written
    changes = ", ".join(changes)
    logger.warning("defaults of %s have changed since the run was made: it keeps its own (%s)", written.name, changes)
    return _without(registry.canonical(kind, full), decided - set(written.args))


def changed_defaults(kind: str, short: str, full: str, decided: Iterable[str] = FROM_DATA) -> list[str]:
    """List the defaults that have changed since `short` had the full spec `full`, such as "node.tau=2.0, now 1.8".

    Arguments that the data set and the settings have `decided` are left out.
    """
    made = registry.full(kind, full)
    now = parse(short).replace(**{name: made.args[name] for name in decided if name in made.args})
    return _changes(made, registry.full(kind, now))


def says_nothing_else(kind: str, typed: Spec, full: str) -> bool:
    """Whether every argument written in the spec `typed` has the same value in the recorded full spec."""

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
    """Compare a recorded run with a wanted identity: {name: the recorded value, in words} for all that differs.

    `args` is the run's args.yml or a checkpoint's record. Data that an older version did not record count as the same
    if they come from the same --data-dir; see `unrecorded`.
    """
    recorded = {**args, **args.get("identity", {})}
    changes = {kind: text for kind in FULL if (text := _spec_difference(kind, recorded, wanted))}
    values = {}  # of this version's settings in the recorded run
    for setting in fields(Settings):
        if setting.metadata["result"] and setting.name not in FULL:
            default = setting.default if setting.default is not MISSING else None
            value = values[setting.name] = recorded.get(setting.name, default)
            if _text(value) != _text(wanted[setting.name]):
                changes[setting.name] = f"{setting.name}={value!r}"
    further = {name: value for name, value in args.get("identity", {}).items() if name not in {*values, *wanted}}
    for name, value in further.items():
        if value is not None:
            changes[name] = f"{name}={value!r}, a setting that this version does not have"
    if "source" not in changes and recorded.get("full_source") != wanted.get("full_source"):
        changes["source"] = f"source={recorded.get('full_source')!r}"
    return {
        **changes,
        **_data_difference(recorded, wanted, settings),
        **_source_difference(recorded, wanted),
        **_plugin_difference(recorded, wanted),
    }


def unrecorded(args: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Which of "data" and "plug-ins" an older version did not record, so that they can't be compared."""
    recorded = {**args, **args.get("identity", {})}
    plugins = wanted["plugins"] or recorded.get("plugin")
    return [
        *(["data"] if recorded.get("data") is None else []),
        *(["plug-ins"] if plugins and recorded.get("plugins") is None else []),
    ]


def _spec_difference(kind: str, recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """How the full specs of a model or data set differ, in words; empty where they are equal."""
    short, full, name = recorded.get(kind, recorded.get("spec")), recorded.get(FULL[kind]), FULL[kind]
    if full is None:  # recorded by a version that kept short specs alone
        return "" if short == wanted[kind] else f"{kind}={short!r}"
    try:
        made, now = (_without(registry.full(kind, text), set(PLACES)) for text in (full, wanted[name]))
    except SpecError:  # a part or an argument was removed since
        return f"{kind}={short!r}, which can't be built now"
    changes = ", ".join(_changes(made, now))
    if not changes:
        return ""
    return f"defaults of {kind} ({changes})" if short == wanted[kind] else f"{kind}={short!r} ({changes})"


def _changes(made: Spec, now: Spec, place: str = "") -> list[str]:
    """The arguments in which two full specs differ, each as in "node.tau=2.0, now 1.8"."""
    if made.name != now.name:
        return [f"{place.rstrip('.') or 'name'}={made.name}, now {now.name}"]
    changes = []
    for name in sorted({*made.args, *now.args}):
        old, new = (spec.args.get(name, "absent") for spec in (made, now))
        if isinstance(old, Spec) and isinstance(new, Spec):
            changes += _changes(old, new, f"{place}{name}.")
        elif Spec("value", {"of": old}) != Spec("value", {"of": new}):
            changes.append(f"{place}{name}={_shown(old)}, now {_shown(new)}")
    return changes


def _data_difference(recorded: Mapping[str, Any], wanted: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    """{"data": how the data differ, in words}, or {}."""
    old, new = recorded.get("data"), wanted["data"]
    if old is None:
        embedded = "data_dir" not in registry.entry("dataset", settings.dataset).params
        place = recorded.get("data_dir")
        if embedded or place is None or _resolved(place) == _resolved(settings.data_dir):
            return {}
        return {"data": f"data (not recorded by the version that made it; from --data-dir {place})"}
    return {} if old["digest"] == new["digest"] else {"data": f"data ({_other_contents(old, new)})"}


def _source_difference(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, str]:
    """{"source_data": how the images of transfer learning differ, in words}, or {}."""
    old, new = recorded.get("source_data"), wanted.get("source_data")
    if not old or not new or old["digest"] == new["digest"]:  # without one, the settings differ
        return {}
    return {"source_data": f"data of the source ({_other_contents(old, new)})"}


def _other_contents(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    counts = [f"{each['train']} + {each['test']} images of {each['classes']} classes" for each in (old, new)]
    return f"{counts[0]}, now {counts[1]}" if counts[0] != counts[1] else "the same counts, other contents"


def _plugin_difference(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, str]:
    """{"plugins": which files differ, in words}, or {}."""
    old, new = recorded.get("plugins"), wanted["plugins"]
    if old is None or sorted(old.values()) == sorted(new.values()):  # a file may have been renamed
        return {}
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    parts = [name for name in names if name.split(" ")[0] in registry.KINDS and not name.endswith(".py")]
    files = [name for name in names if name not in parts]
    told = [("the contents of plug-in", files), ("the code of", parts)]
    return {"plugins": " and ".join(f"{what} {', '.join(found)}" for what, found in told if found)}


def _without(spec: Spec, names: set[str]) -> Spec:
    return Spec(spec.name, {name: value for name, value in spec.args.items() if name not in names})


def _resolved(place: str) -> Path:
    return Path(place).expanduser().resolve()


def _shown(value: Any) -> str:
    """The value as a spec writes it."""
    return str(Spec("value", {"of": value}))[len("value(of=") : -1]


def _text(value: Any) -> str:
    """The value as JSON, which, unlike ==, tells 1 from 1.0 and from true."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, sort_keys=True)
