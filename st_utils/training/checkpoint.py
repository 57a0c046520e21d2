"""Checkpoints: weights in a safetensors file that anyone can read; beside it, what the run needs to go on.

    state = {"epoch": 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    save_rotating("runs/X", "last", state)
    state, path, warnings = load_newest("runs/X", "last")
    model.load_state_dict(safetensors.torch.load_file("runs/X/last.safetensors"))  # without this project

    last.safetensors        the tested weights (the moving average where there is one) by their state_dict names
    last.state.safetensors  the rest: optimiser, schedule, scaler; beside a moving average also the raw weights
    last.prev.safetensors, last.prev.state.safetensors  the pair before
    best.safetensors        weights alone: a run goes on from `last` only
    epoch-0010.safetensors  weights alone, of epochs that are kept; epoch-0000 has them as drawn

Why not torch.save: only torch reads its files, and torch.load does not notice a flipped bit.

The two files of a pair never disagree: weights hold the SHA-256 of their state, and no other state is taken for it.
`save_rotating` writes both files under spare names, then: the old weights are linked as `prev`, the old state is linked
as `prev`, the new state replaces the old one, the new weights replace the old ones. Until then the old weights find
their state under one of its two names. So a kill at any instant leaves a whole pair as `last` and one as `prev`.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from st_utils.errors import UserError
from st_utils.files import spare_name, write_atomic
from st_utils.training import old_checkpoint
from st_utils.training.finite import OTHER_CHECKPOINT, refuse_not_finite
from st_utils.training.packer import pack_file, unpack_file, unpacked
from st_utils.training.tensor_file import CheckpointError, TensorFile, read, read_metadata, verify

WEIGHTS = "spiking-transformer-zoo weights 2"
STATE = "spiking-transformer-zoo state 2"
_log = logging.getLogger(__name__)
State = dict[str, Any]


class Loaded(NamedTuple):
    """A state, the file of its weights, and a line of warning where that is not the newest file."""

    state: State
    path: Path
    warnings: list[str]


def save_weights(path: str | Path, state: State) -> None:
    """Write the tested weights of a state to `path`, whole or not at all, with the model's spec, epoch and accuracy.

    Raises UserError when the disk refuses.
    """
    write_atomic(path, _weights_file(state).chunks())


def keep_weights(folder: str | Path, state: State, every: int | None) -> None:
    """Write the tested weights of a state to `epoch-<number>` at the end of every `every`-th epoch; None: of none."""
    if every and state["epoch"] % every == 0 and not state["losses"]:
        drawn = state["epoch"] == 0  # and never tested
        known = {name: value for name, value in state.items() if not (drawn and name == "top1")}
        save_weights(Path(folder) / f"epoch-{state['epoch']:04d}.safetensors", known)


def kept_paths(folder: str | Path) -> list[Path]:
    """The files that `keep_weights` wrote, by epoch."""
    numbered = {path: path.stem.removeprefix("epoch-") for path in Path(folder).glob("epoch-*.safetensors")}
    return sorted((path for path, number in numbered.items() if number.isdigit()), key=lambda path: int(numbered[path]))


def save_rotating(folder: str | Path, name: str, state: State) -> None:
    """Write `state` as the pair `<name>`; the pair that was there becomes `<name>.prev`, if it is sound.

    `state` holds what `Packer` can pack, the weights under "model", and under "ema" where there is a moving average.
    Raises TypeError for what it can't pack, UserError when the disk refuses; the files are then as they were.
    """
    last, prev = rotating_paths(folder, name)
    _write_pair(last, state, before=lambda: _keep_sound(last, prev))


def load(path: str | Path, alone: bool = False) -> State:
    """Return the state that was saved, its tensors on the CPU, laid out in memory and tied as they were.

    With `alone`, and of a file of `save_weights`, only the weights' file is read: its state has `record`, `epoch`,
    `top1`, and the tested weights under "model" or "ema". Raises CheckpointError unless every file read verifies.
    """
    path = Path(path)
    weights, rest = _verified(path, alone)
    state = unpack_file(path, weights)
    if rest is None:
        return state
    return unpack_file(state_path(path), rest) | {key: state[key] for key in ("model", "ema") if key in state}


def load_newest(folder: str | Path, name: str, alone: bool = False) -> Loaded:
    """Load the newest sound checkpoint of the two that `save_rotating` keeps; see `load` for `alone`.

    When that is not the last one, the warning, also logged, says what is wrong with the last.
    Raises CheckpointError, which names both files, when neither can be used.
    """
    last, prev = rotating_paths(folder, name)
    try:
        return Loaded(load(last, alone), last, [])
    except CheckpointError as error:
        newer = error
    try:
        state = load(prev, alone)
    except CheckpointError as older:
        raise CheckpointError(f"no usable checkpoint: {newer}; {older}") from None
    warning = f"{newer}; using the one before it, {prev}"
    _log.warning(warning)
    return Loaded(state, prev, [warning])


def load_weights(model: nn.Module, state: State, weights: str | None = None) -> None:
    """Load a state's weights into a model: those that are tested, unless `weights` is "model" or "ema".

    Raises UserError when they are another model's, or hold inf or nan; the model is then unchanged.
    """
    weights = weights or _tested(state)
    try:
        refuse_not_finite(state[weights], model, "the checkpoint's weights", OTHER_CHECKPOINT)
        model.load_state_dict(state[weights])
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the checkpoint is of {state.get('record', {}).get('spec')}, not of this model: {reason}"
        ) from None


def read_record(path: str | Path) -> dict[str, Any]:
    """The `record` in a checkpoint, which says what the run is; {} where there is none. No tensor is read."""
    try:
        return dict(unpacked(dict(json.loads(read_metadata(path)["state"])["dict"])["record"], {}))
    except (ValueError, TypeError, LookupError, RecursionError):  # `load` says what is wrong
        return {}


def renew(folder: str | Path) -> None:
    """Rewrite the checkpoints of a run that version 0.1.0 began in today's form; damaged ones stay as they are."""
    last, prev = rotating_paths(folder, "last")
    best = Path(folder) / "best.safetensors"
    for path, write in ((last, _write_pair), (prev, _write_pair), (best, save_weights)):
        if read_metadata(path).get("format") == old_checkpoint.FORMAT:
            try:
                write(path, load(path))
            except CheckpointError as error:
                _log.warning("%s", error)


def rotating_paths(folder: str | Path, name: str) -> tuple[Path, Path]:
    """The two files of weights that `save_rotating` keeps: (the newest, the one before it)."""
    return Path(folder) / f"{name}.safetensors", Path(folder) / f"{name}.prev.safetensors"


def state_path(weights: Path) -> Path:
    """The file beside a file of weights that holds the rest of the state."""
    return weights.with_name(f"{weights.name.removesuffix('.safetensors')}.state.safetensors")


def _write_pair(path: Path, state: State, before: Callable[[], None] = lambda: None) -> None:
    """Write both files of a state; `before` is called when both are complete on disk and neither is in place."""
    if not isinstance(state, dict):
        raise TypeError(f"a checkpoint's state is a dict, not {type(state).__name__}")
    key = _tested(state)
    rest = pack_file({"format": STATE}, {**state, key: None} if key in state else state)
    weights = _weights_file(state, state_sha256=rest.metadata["sha256"])

    def put_state_in_place() -> None:  # before the weights that name it
        write_atomic(state_path(path), rest.chunks(), before=before)

    write_atomic(path, weights.chunks(), before=put_state_in_place)


def _weights_file(state: State, **further: str) -> TensorFile:
    """The tested weights of a state; spec, data set, epoch and accuracy are strings in the file's metadata."""
    key, record, steps = _tested(state), state.get("record", {}), len(state.get("losses", ()))
    said = {name: str(record[name]) for name in ("spec", "full_spec", "dataset") if name in record}
    if "epoch" in state:
        said["epoch"] = str(state["epoch"])
    if steps:  # of the next epoch; the accuracy is then that of other weights
        said["step"] = str(steps)
    elif "top1" in state:
        said["top1"] = f"{state['top1']:.2f}"
    said = {name: text.encode("utf-8", "backslashreplace").decode() for name, text in said.items()}
    known = {name: state[name] for name in ("record", "epoch", "top1", key) if name in state}
    return pack_file({"format": WEIGHTS, **said, **further}, known, plain=key)


def _tested(state: State) -> str:
    return "ema" if state.get("ema") else "model"


def _verified(path: Path, alone: bool = False) -> tuple[TensorFile, TensorFile | None]:
    """The weights' file and its state's, where there is one and it is asked for. Raises CheckpointError."""
    weights = read(path, WEIGHTS, old_checkpoint.FORMAT)
    if weights.metadata["format"] == old_checkpoint.FORMAT:
        old_checkpoint.verify(path, weights)
        return weights, None
    verify(path, weights)
    wanted = weights.metadata.get("state_sha256")
    return weights, None if alone or wanted is None else _find_state(path, wanted)


def _find_state(weights: Path, wanted: str) -> TensorFile:
    """The state with this digest, under the name of either pair (see the top). Raises CheckpointError."""
    name = weights.name.removesuffix(".safetensors").removesuffix(".prev")
    places = map(state_path, rotating_paths(weights.parent, name))
    wrong = []
    for path in sorted(places, key=lambda path: path != state_path(weights)):  # its own name first
        try:
            state = read(path, STATE)
            verify(path, state)
            if state.metadata["sha256"] == wanted:
                return state
            wrong.append(f"{path} is of another step")
        except CheckpointError as error:
            wrong.append(str(error))
    raise CheckpointError(f"{weights}: its state, which a run needs to go on, is not there: {'; '.join(wrong)}")


def _keep_sound(last: Path, prev: Path) -> None:
    """Name the pair `last` also `prev`; not a damaged one: then the old `prev` is the one worth keeping."""
    if last.exists() and not (prev.exists() and prev.samefile(last)):  # the same: killed just after this
        try:
            _verified(last)
        except CheckpointError as error:
            _log.warning("%s; it is overwritten, and not kept as %s", error, prev.name)
        else:
            _name_also(last, prev)
    state = read_metadata(state_path(last)).get("sha256")
    if state is not None and state == read_metadata(prev).get("state_sha256"):
        _name_also(state_path(last), state_path(prev))


def _name_also(old: Path, new: Path) -> None:
    """Give the file `old` the name `new` as well; at every instant the name `new` is a whole file."""
    if new.exists() and new.samefile(old):
        return
    spare = spare_name(new)
    try:
        os.link(old, spare)
    except OSError:  # no hard links on this file system: for a moment only `new` is there
        os.replace(old, new)
    else:
        try:
            os.replace(spare, new)
        finally:
            spare.unlink(missing_ok=True)
