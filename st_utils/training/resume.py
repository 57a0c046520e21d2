"""Which run --resume means, and what it recorded of itself.

    args, origin = recorded_args("runs/NAME")                    # its args.yml
    record, folder, state, summary = agreed_run(settings, data)  # the run to go on with, if there is one

A run is never gone on with as another one: see `identity` for what makes two runs the same.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import registry
from st_utils.data import DataSet
from st_utils.errors import UserError
from st_utils.training import checkpoint, distributed
from st_utils.training.identity import (
    FACTS,
    FULL,
    as_made,
    differences,
    identity,
    recorded_facts,
    says_nothing_else,
    unrecorded,
)
from st_utils.training.run_folder import RunFolder
from st_utils.training.settings import Settings

logger = logging.getLogger("zoo")

NEAR = 3  # a run that differs in no more things than these is named, so that none is begun beside it unnoticed


def recorded_args(resume: str | None) -> tuple[dict[str, Any], str]:
    """What the run that --resume names by its path recorded of itself, and the file that holds it.

    That is its args.yml; of a checkpoint that lies alone, its own record. Raises UserError when there is no run.
    """
    if resume in (None, "auto"):
        return {}, ""
    path = Path(resume)
    folder = path.parent if path.is_file() else path
    if path.is_file() and not (folder / "args.yml").is_file():
        record = checkpoint.read_record(path)
        return ({**record, "model": record["spec"]}, str(path)) if "spec" in record else ({}, "")
    return RunFolder.open(folder).args, str(folder / "args.yml")


def recorded_settings(args: dict[str, Any], origin: str, given: dict[str, Any]) -> dict[str, Any]:
    """The settings in what `recorded_args` found: all of them, so that a default that changed since changes none.

    A checkpoint that lies alone knows model, data set and side, which are used where no model is given.
    """
    known = {f.name for f in fields(Settings)} - {"resume", "eval", "config", "dry_run"}
    found = {name: value for name, value in args.items() if name in known}
    if args and "identity" not in args:
        side = registry.parse(args["full_spec"]).args.get("img_size")
        found |= {"img_size": side} if isinstance(side, int) else {}
        return {} if "model" in given else found
    beyond = set(args.get("identity", ())) - {f.name for f in fields(Settings)} - {*FACTS}
    for name in sorted(beyond):
        logger.warning("%s records %s=%r, which this version ignores", origin, name, args["identity"][name])
    return found


def spec_as_recorded(
    kind: str,
    text: str,
    args: dict[str, Any],
    typed: bool,
    change: Callable[[registry.Spec], registry.Spec] = lambda spec: spec,
    decided: Iterable[str] = (),
) -> registry.Spec:
    """The spec of a run, or of the recorded run that it goes on with, as that was made then.

    Args:
        text: the spec; `typed` on the command line, or else the recorded one.
        args: what `recorded_args` found.
        change: makes of a spec what the command line says further of it.
        decided: arguments that the command line's settings decide.
    """
    wanted, known = change(registry.parse(text)), {**args, **args.get("identity", {})}
    if not known.get(FULL[kind]):
        return wanted
    short, full = known[kind], known[FULL[kind]]
    if registry.canonical(kind, wanted) == registry.canonical(kind, short) and says_nothing_else(kind, wanted, full):
        return as_made(kind, short, full, decided)
    return wanted if typed else change(as_made(kind, short, full, decided))


def dataset_as_recorded(text: str, args: dict[str, Any], typed: dict[str, Any]) -> registry.Spec:
    """The data set's spec, likewise; `typed` settings are those of the command line."""
    sized = ["event_size"] if {"event_size", "img_size"} & set(typed) else []
    return spec_as_recorded("dataset", text, args, "dataset" in typed, decided=sized)


class Found(NamedTuple):
    """What --resume means: a run's folder, its checkpoint and the state in it; each None where there is none."""

    folder: RunFolder | None = None
    checkpoint: Path | None = None
    state: dict[str, Any] | None = None


class AgreedRun(NamedTuple):
    """What all processes know of the run to go on with.

    Attributes:
        record: what it is made of, see `recorded_facts`.
        folder: the first process's alone; None where the run is new.
        state: of its checkpoint, if it has one.
        summary: of a finished run.
    """

    record: dict[str, Any]
    folder: RunFolder | None
    state: dict[str, Any] | None
    summary: dict[str, Any] | None


def find_run(settings: Settings, record: dict[str, Any]) -> Found:
    """Find what --resume means; nothing for a fresh run.

    record: what the run is made of, see `recorded_facts`.
    """
    if settings.resume is None:
        return Found()
    path, wanted, trains = Path(settings.resume), identity(settings, record), _trains(settings)
    if settings.resume != "auto" and path.is_file():
        if not (settings.eval or settings.show):
            raise UserError(f"{path} is one checkpoint: give its run's folder to --resume, or add --eval")
        state = checkpoint.load(path, alone=True)
        _tell(path, recorded_args(settings.resume)[0] or state.get("record", {}), wanted, settings)
        return Found(None, path, state)
    folder = _same_run(settings, wanted) if settings.resume == "auto" else RunFolder.open(path)
    if folder is None:
        return Found()
    if trains and settings.resume != "auto":
        _refuse_another(folder, wanted, settings)
    _tell(folder.path, folder.args, wanted, settings)
    if not (settings.eval or settings.show):
        folder.lock()
    if not any(file.exists() for file in checkpoint.rotating_paths(folder.path, "last")):
        if settings.eval or settings.show:
            raise UserError(f"{folder.path} has no checkpoint yet")
        return Found(folder)
    state, path, _ = checkpoint.load_newest(folder.path, "last", alone=not trains)
    return Found(folder, path, state)


def _trains(settings: Settings) -> bool:
    return not (settings.eval or settings.profile or settings.audit or settings.show)


def _same_run(settings: Settings, wanted: dict[str, Any]) -> RunFolder | None:
    """The newest run of these settings, data and plug-ins in --output; where there is none, says which is nearest."""
    runs = [(differences(folder.args, wanted, settings), folder) for folder in RunFolder.all(settings.output)]
    changed, folder = min(runs, key=lambda run: len(run[0]), default=({"": ""}, None))  # the newest of equals
    if not changed:
        return folder
    near = ""
    if folder is not None and len(changed) <= NEAR:
        near = f"{folder.path} is the same but for {', '.join(changed.values())}"
    if settings.eval or settings.show:
        near = f"; {near}: test it by --resume {folder.path}" if near else ""
        raise UserError(f"no run of these settings is in {settings.output}{near}")
    if near:
        logger.warning("%s: starting anew beside it", near)
    else:
        logger.info("no run of these settings is in %s: starting one", settings.output)
    return None


def _refuse_another(folder: RunFolder, wanted: dict[str, Any], settings: Settings) -> None:
    """Raise UserError when the run in this folder is another than the wanted one: the two must not be mixed."""
    changed = differences(folder.args, wanted, settings)
    if "data" in unrecorded(folder.args, wanted):  # who names a run answers for its data
        changed.pop("data", None)
    if not changed:
        return
    kinds = [word for word in ("data", "plugins") if word in changed]
    kinds += ["settings"] if set(changed) - {"data", "plugins"} else []
    other = " and ".join(kinds).replace("plugins", "plug-ins")
    raise UserError(
        f"{folder.path} was run with other {other} ({', '.join(changed.values())}): give the same, or leave out "
        "--resume to start anew"
    )


def _tell(path: Path, args: dict[str, Any], wanted: dict[str, Any], settings: Settings) -> None:
    """Log in what the model, data and plug-ins are not the recorded ones, or that this can't be known."""
    changed = differences(args, wanted, settings)
    missing = unrecorded(args, wanted)
    told = [changed[name] for name in ("model", "dataset", "data", "plugins") if name in changed]
    if told:
        logger.warning("not what %s was trained with: %s", path, ", ".join(told))
    if missing:
        logger.warning(
            "%s does not record its %s, an earlier version made it: they are taken for these",
            path,
            " and ".join(missing),
        )


def agreed_run(settings: Settings, data: DataSet, source: DataSet | None = None) -> AgreedRun:
    """Find the run in the first process; the others learn of it, and each loads the checkpoint."""
    found = Found()

    def find() -> tuple[dict[str, Any], Path | None, dict[str, Any] | None]:
        nonlocal found
        record = recorded_facts(settings, data, source)
        found = find_run(settings, record)
        return record, found.checkpoint, found.folder and found.folder.read_summary()

    record, path, summary = distributed.from_first(find)
    state = found.state
    if path is not None and state is None:
        state = checkpoint.load(path, alone=not _trains(settings))
    return AgreedRun(record, found.folder, state, summary)
