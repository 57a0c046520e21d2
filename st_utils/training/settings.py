"""The settings of a run: what they are called, what they mean, and where their values come from.

One dataclass says it all: the command line, recipes and --config files are read against it, and args.yml is
written from it. Later sources win: defaults, recipe, --config file, command line.
"""

from __future__ import annotations

import argparse
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from registry import KINDS, SpecError, nearest
from registry.bind import Param, coerce, params_of
from st_utils.errors import UserError


def _setting(default: Any, group: str, text: str, result: bool = True) -> Any:
    """A field; `result` says that it can change a run's numbers, so that it belongs to the run's identity."""
    return field(default=default, metadata={"group": group, "help": text, "result": result})


@dataclass(frozen=True)
class Settings:
    """Everything that a run is told. Field names are the command line's, with _ for -."""

    model: str = _setting("spikformer", "model", "model spec, such as 'sdt(depth=2, attention=statten)'")
    step: int | None = _setting(None, "model", "time steps")

    dataset: str = _setting("digits", "data", "data set spec; see --list dataset")
    data_dir: str = _setting("data", "data", "folder of the data set's files", result=False)
    download: bool = _setting(False, "data", "download the data set if it is missing", result=False)
    img_size: int | None = _setting(None, "data", "image side in pixels")
    event_size: int | None = _setting(None, "data", "side in pixels of the frames of an event data set")
    cache_dir: str | None = _setting(
        None,
        "data",
        "folder of the frames of event data sets, or none to integrate each time (default: beside the data)",
        result=False,
    )
    train_images: int | None = _setting(None, "data", "train on the first so many images, classes in turn")
    test_images: int | None = _setting(None, "data", "test on the first so many images, classes in turn")
    workers: int = _setting(0, "data", "loader processes", result=False)
    crop_pct: float | None = _setting(None, "data", "part of a test image's side that is kept")

    auto_augment: str | None = _setting(None, "augmentation", "timm policy, such as rand-m9-n1-mstd0.4-inc1")
    hflip: float = _setting(0.0, "augmentation", "probability of a left-right flip")
    color_jitter: float = _setting(0.0, "augmentation", "strength of colour changes")
    scale: tuple[float, float] | None = _setting(None, "augmentation", "area of a random resized crop, [low, high]")
    ratio: tuple[float, float] = _setting((3 / 4, 4 / 3), "augmentation", "aspect of that crop, [low, high]")
    crop_padding: int = _setting(0, "augmentation", "pixels around the image before a random crop")
    reprob: float = _setting(0.0, "augmentation", "probability of random erasing")
    remode: str = _setting("pixel", "augmentation", "fill of random erasing: const, rand or pixel")
    recount: int = _setting(1, "augmentation", "most erased patches")
    interpolation: str = _setting("bicubic", "augmentation", "of resizing: bicubic, bilinear, nearest, random")
    mixup: float = _setting(0.0, "augmentation", "mixup alpha, 0 for none")
    cutmix: float = _setting(0.0, "augmentation", "cutmix alpha, 0 for none")
    event_augment: str | None = _setting(
        None, "augmentation", "of event frames, joined by +: hflip, roll, crop, nda, snn_augment_wide, ..."
    )
    event_mix: float = _setting(0.0, "augmentation", "EventMix alpha, 0 for none")
    mixup_prob: float = _setting(1.0, "augmentation", "probability of mixing a batch")
    mixup_switch_prob: float = _setting(
        0.5, "augmentation", "probability of the latter where two of mixup, cutmix, event-mix are on"
    )
    mixup_off_epoch: int = _setting(0, "augmentation", "no mixing from this epoch on, 0 for never")

    epochs: int = _setting(100, "training", "epochs in all, warm-up and cool-down among them")
    batch_size: int = _setting(64, "training", "images in a step, of all processes and micro-batches together")
    accum_steps: int = _setting(1, "training", "micro-batches of a step on each process (gradient accumulation)")
    opt: str = _setting("adamw", "training", "timm optimiser")
    lr: float = _setting(1e-3, "training", "learning rate")
    weight_decay: float = _setting(
        0.05,
        "training",
        "weight decay, of weights with more than one axis that are no biases, norms, or in a part's no_weight_decay()",
    )
    momentum: float = _setting(0.9, "training", "momentum, for the optimisers that have it")
    sched: str = _setting("cosine", "training", "timm schedule: cosine, tanh, step, plateau (timm 1.0 or newer), poly")
    min_lr: float = _setting(1e-5, "training", "learning rate at the end of the schedule")
    warmup_epochs: int = _setting(0, "training", "epochs of rising learning rate")
    warmup_lr: float = _setting(1e-5, "training", "learning rate at the start of the warm-up")
    cooldown_epochs: int = _setting(0, "training", "last epochs, at min-lr")
    decay_epochs: float = _setting(30.0, "training", "epochs between decays of sched=step")
    decay_rate: float = _setting(0.1, "training", "factor of sched=step and plateau")
    smoothing: float = _setting(0.0, "training", "label smoothing")
    tet: bool = _setting(False, "training", "TET loss: cross-entropy at every time step, and its regulariser")
    tet_means: float = _setting(1.0, "training", "logit that TET's regulariser draws towards")
    tet_lamb: float = _setting(0.001, "training", "weight of TET's regulariser, 0 to 1")
    clip_grad: float | None = _setting(None, "training", "largest norm of the gradient")
    ema: float | None = _setting(None, "training", "decay of the weights' moving average, tested instead of them")
    amp: Literal["none", "bf16", "fp16"] = _setting("none", "training", "automatic mixed precision")
    pack_spikes: bool = _setting(
        False, "training", "keep spikes in bits for the backward pass: less memory, the same gradients", result=False
    )
    compile: bool = _setting(False, "training", "compile the model (on CUDA with CUDA graphs): slow start, fast steps")
    sync_bn: bool = _setting(False, "training", "batch norm over the samples of all processes")
    channels_last: bool = _setting(False, "training", "keep images with their channels last in memory")
    recompute: bool = _setting(
        False, "training", "activation checkpointing: blocks keep only their inputs for backward", result=False
    )

    seed: int = _setting(42, "run", "of the initial weights, the order and the augmentation")
    device: str = _setting("auto", "run", "auto, cpu, cuda or a GPU's number", result=False)
    output: str = _setting("runs", "run", "folder that gets one folder a run", result=False)
    resume: str | None = _setting(None, "run", "auto, a run's folder, or a checkpoint", result=False)
    eval: bool = _setting(False, "run", "only test what --resume names", result=False)
    fold: bool = _setting(False, "run", "with --eval: norms folded into the convolutions", result=False)
    profile: bool = _setting(
        False, "analysis", "only print operations, energy, firing rates and time by layer", result=False
    )
    audit: bool = _setting(False, "analysis", "only print what enters each layer: spikes or not", result=False)
    mac_pj: float = _setting(4.6, "analysis", "energy of a multiply-accumulate, pJ", result=False)
    ac_pj: float = _setting(0.9, "analysis", "energy of an accumulation, pJ", result=False)
    byte_pj: float = _setting(24.96, "analysis", "energy of a byte of memory traffic, pJ", result=False)
    recipe: str | None = _setting(
        None, "run", "recipe name, or none (default: the model's and data set's)", result=False
    )
    config: str | None = _setting(None, "run", "YAML file of settings", result=False)
    dry_run: int | None = _setting(
        None, "run", "measure so many steps, say what the whole run needs, and stop", result=False
    )
    power: float | None = _setting(
        None, "run", "watts that the machine draws, for the energy of --dry-run", result=False
    )
    plugin: tuple[str, ...] = _setting((), "run", "file or module that registers parts (repeatable)", result=False)

    def identity(self) -> dict[str, Any]:
        """The settings that determine a run's result, in plain values."""
        chosen = {f.name: getattr(self, f.name) for f in fields(self) if f.metadata["result"]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()}


PARAMS: dict[str, Param] = {
    name: Param(name, p.hint, p.default, None) for name, p in params_of(Settings, KINDS).items()
}


def checked(values: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Settings by name with values of the right type. Raises UserError that names the setting and its origin."""
    good = {}
    for name, value in values.items():
        key = str(name).replace("-", "_")
        if key not in PARAMS:
            raise UserError(f"{origin}: unknown setting {name!r}{nearest(key, PARAMS)}")
        try:
            good[key] = coerce(_number(value, PARAMS[key].hint), PARAMS[key])
        except SpecError as error:
            raise UserError(f"{origin}: {name} {error.message}") from None
    return good


def _number(value: Any, hint: Any) -> Any:
    """YAML reads 5e-4, without a point, as text: a float is meant where a setting takes one."""
    takes_float = hint is float or float in typing.get_args(hint)
    if takes_float and isinstance(value, str) and re.fullmatch(r"[+-]?[0-9.]+[eE][+-]?[0-9]+", value):
        return float(value)
    return value


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError when it is missing or not one."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold settings, one `name: value` a line")
    return content


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with the nearest option for an unknown one."""

    def error(self, message: str) -> typing.NoReturn:
        raise UserError(message)

    def parse(self, argv: Iterable[str]) -> dict[str, Any]:
        found, unknown = self.parse_known_args(list(argv))
        if unknown:
            options = [option for action in self._actions for option in action.option_strings]
            raise UserError(f"unknown argument {unknown[0]}{nearest(unknown[0].split('=')[0], options)}; see --help")
        return vars(found)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """One option a setting; what is not given stays out of the result."""
    groups = {}
    for setting in fields(Settings):
        group = setting.metadata["group"]
        groups.setdefault(group, parser.add_argument_group(group))
        option = "--" + setting.name.replace("_", "-")
        default = "" if setting.default in (None, MISSING, ()) else f" (default {_shown(setting.default)})"
        common = {"dest": setting.name, "default": argparse.SUPPRESS, "help": setting.metadata["help"] + default}
        hint = PARAMS[setting.name].hint
        if hint is bool:
            groups[group].add_argument(option, action=argparse.BooleanOptionalAction, **common)
        elif setting.name == "plugin":
            groups[group].add_argument(option, action="append", metavar="FILE_OR_MODULE", **common)
        else:
            groups[group].add_argument(option, type=_reader(hint), metavar=_metavar(hint), **common)


def _members(hint: Any) -> tuple[Any, ...]:
    is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return typing.get_args(hint) if is_union else (hint,)


def _reader(hint: Any) -> Any:
    """Turns an option's text into a value; whether it fits is `checked`'s business."""
    members = _members(hint)
    if str in members or any(typing.get_origin(m) is Literal for m in members):
        return str

    def read(text: str) -> Any:
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text

    return read


def _metavar(hint: Any) -> str:
    first = _members(hint)[0]
    if typing.get_origin(first) is Literal:
        return "{" + ",".join(typing.get_args(first)) + "}"
    return {int: "N", float: "X", str: "TEXT"}.get(first, "[LOW,HIGH]")


def _shown(value: Any) -> str:
    return "no" if value is False else f"{value:.4g}" if isinstance(value, float) else str(value)
