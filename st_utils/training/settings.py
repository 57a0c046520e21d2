"""The settings of a run: names, meanings, types and ranges.

    checked({"lr": "5e-4"}, "mine.yml")     # {"lr": 0.0005}
    Settings(epochs=3).epochs               # 3

One dataclass, checked by pydantic: the command line, recipes and --config files are read against it, and args.yml is
written from it. Later sources win: defaults, recipe, --config file, command line. What depends on several settings or
on the data, such as a batch size that the processes can't share, is checked where it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field, fields
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from st_utils.analysis.landscape import Fixed
from st_utils.analysis.surface import Axis
from st_utils.training.validation import read_yaml, schema_of, validated

__all__ = ["Settings", "checked", "read_yaml", "schema_of"]


def _written(value: Any) -> Any:
    """YAML reads 5e-4, without a point, as text: a float is meant where a setting takes one."""
    is_float = isinstance(value, str) and re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][+-]?[0-9]+", value)
    return float(value) if is_float else value


def _listed(value: Any) -> Any:
    """YAML has lists where a setting holds a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if not pair[0] <= pair[1]:
        raise ValueError("takes [low, high] with low <= high")
    return pair


def _increasing(epochs: tuple[int, ...]) -> tuple[int, ...]:
    if not all(before < after for before, after in pairwise(epochs)):
        raise ValueError("takes epochs in increasing order")
    return epochs


def _axis(text: str) -> str:
    Axis.parse(text)
    return text


WRITTEN = BeforeValidator(_written)
Count = Annotated[int, Field(ge=1)]
Number = Annotated[float, WRITTEN]
NonNegative = Annotated[float, Field(ge=0), WRITTEN]
Positive = Annotated[float, Field(gt=0), WRITTEN]
PositiveOrInf = Annotated[float, Field(gt=0, allow_inf_nan=True), WRITTEN]
Probability = Annotated[float, Field(ge=0, le=1), WRITTEN]
BelowOne = Annotated[float, Field(ge=0, lt=1), WRITTEN]
Share = Annotated[float, Field(gt=0, le=1), WRITTEN]
Areas = Annotated[tuple[Share, Share], BeforeValidator(_listed), AfterValidator(_ordered)]
Ratios = Annotated[tuple[Positive, PositiveOrInf], BeforeValidator(_listed), AfterValidator(_ordered)]
Pixel = Annotated[tuple[NonNegativeInt, NonNegativeInt], BeforeValidator(_listed)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Milestones = Annotated[
    tuple[Count, ...],
    Field(min_length=1, json_schema_extra={"uniqueItems": True}),
    BeforeValidator(_listed),
    AfterValidator(_increasing),
]
Grid = Annotated[str, AfterValidator(_axis), Field(examples=["-1:1:51", "0:0.5:11"])]


def _setting(default: Any, group: str, text: str, result: bool = True) -> Any:
    """A field; `result` says that it can change a run's numbers, so that it belongs to the run's identity."""
    return field(default=default, metadata={"group": group, "description": text, "result": result})


@dataclass(frozen=True, config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class Settings:
    """The settings of a run. Field names are the command line's, with _ for -."""

    model: str = _setting("spikformer", "model", "model spec, such as 'sdt(depth=2, attention=statten)'")
    step: Count | None = _setting(None, "model", "time steps")

    dataset: str = _setting("digits", "data", "data set spec; see --list dataset")
    data_dir: str = _setting("data", "data", "folder of the data set's files", result=False)
    download: bool = _setting(False, "data", "download the data set if it is missing", result=False)
    img_size: Count | None = _setting(None, "data", "image side in pixels")
    event_size: Count | None = _setting(None, "data", "side in pixels of the frames of an event data set")
    cache_dir: str | None = _setting(
        None,
        "data",
        "folder of the frames of event data sets, or none to integrate each time (default: beside the data)",
        result=False,
    )
    train_images: Count | None = _setting(None, "data", "train on the first N images, classes in turn")
    test_images: Count | None = _setting(None, "data", "test on the first N images, classes in turn")
    workers: NonNegativeInt = _setting(0, "data", "loader processes", result=False)
    crop_pct: Share | None = _setting(None, "data", "part of a test image's side that is kept")

    source: str | None = _setting(
        None, "transfer", "data set of images that the model learns from beside the events of --dataset, such as mnist"
    )
    source_dir: str | None = _setting(
        None, "transfer", "folder of the source's files (default: --data-dir)", result=False
    )
    source_ratio: Share = _setting(1.0, "transfer", "share of the source's images that is used, classes in turn")
    target_ratio: Share = _setting(1.0, "transfer", "share of the training split of --dataset that is used, likewise")
    domain_weight: NonNegative = _setting(0.5, "transfer", "weight of the distance between the domains' features")
    sliding: bool = _setting(
        True, "transfer", "images are replaced by events with growing probability; else all at once, half-way"
    )
    sliding_power: Positive = _setting(3.0, "transfer", "that probability is (share of training done) to this power")
    regularize: bool = _setting(
        False, "transfer", "learned weights of the time steps, of the distance and the events' loss; needs --tet"
    )
    hsv: bool = _setting(True, "transfer", "of colour images: V = max(R, G, B); else the blue channel")
    source_standardise: bool = _setting(
        False, "transfer", "source images less their mean, divided by their std; else from 0 to 1"
    )

    auto_augment: str | None = _setting(None, "augmentation", "timm policy, such as rand-m9-n1-mstd0.4-inc1")
    hflip: Probability = _setting(0.0, "augmentation", "probability of a left-right flip")
    color_jitter: NonNegative = _setting(0.0, "augmentation", "strength of colour changes")
    scale: Areas | None = _setting(None, "augmentation", "area of a random resized crop, [low, high]")
    ratio: Ratios = _setting((3 / 4, 4 / 3), "augmentation", "aspect of that crop, [low, high]")
    crop_padding: NonNegativeInt = _setting(0, "augmentation", "pixels around the image before a random crop")
    reprob: Probability = _setting(0.0, "augmentation", "probability of random erasing")
    remode: Literal["const", "rand", "pixel"] = _setting("pixel", "augmentation", "fill of random erasing")
    recount: Count = _setting(1, "augmentation", "most erased patches")
    interpolation: Literal["bicubic", "bilinear", "nearest", "random"] = _setting(
        "bicubic", "augmentation", "of resizing; random: one of the first two"
    )
    mixup: NonNegative = _setting(0.0, "augmentation", "mixup alpha, 0 for none")
    cutmix: NonNegative = _setting(0.0, "augmentation", "cutmix alpha, 0 for none")
    event_augment: str | None = _setting(
        None, "augmentation", "of event frames, joined by +: hflip, roll, crop, nda, snn_augment_wide, ..."
    )
    event_mix: NonNegative = _setting(0.0, "augmentation", "EventMix alpha, 0 for none")
    mixup_prob: Probability = _setting(1.0, "augmentation", "probability of mixing a batch")
    mixup_switch_prob: Probability = _setting(
        0.5, "augmentation", "probability of the latter where two of mixup, cutmix, event-mix are on"
    )
    mixup_off_epoch: NonNegativeInt = _setting(0, "augmentation", "no mixing from this epoch on, 0 for never")

    epochs: Count = _setting(100, "training", "epochs in all, warm-up and cool-down among them")
    batch_size: Count = _setting(64, "training", "images per step, over all processes and micro-batches")
    accum_steps: Count = _setting(1, "training", "micro-batches per step on each process (gradient accumulation)")
    opt: str = _setting("adamw", "training", "timm optimiser")
    lr: NonNegative = _setting(1e-3, "training", "learning rate")
    weight_decay: NonNegative = _setting(
        0.05,
        "training",
        "weight decay, of weights with more than one axis that are no biases, norms, or in a part's no_weight_decay()",
    )
    momentum: NonNegative = _setting(0.9, "training", "momentum, for the optimisers that have it")
    sched: Literal["cosine", "tanh", "step", "multistep", "plateau", "poly"] = _setting(
        "cosine", "training", "timm schedule; plateau needs timm 1.0 or newer"
    )
    milestones: Milestones | None = _setting(
        None, "training", "sched=multistep: epochs after which the rate is multiplied by decay-rate, such as '[10, 15]'"
    )
    min_lr: NonNegative = _setting(1e-5, "training", "learning rate at the end of the schedule")
    warmup_epochs: NonNegativeInt = _setting(0, "training", "epochs of rising learning rate")
    warmup_lr: NonNegative = _setting(1e-5, "training", "learning rate at the start of the warm-up")
    cooldown_epochs: NonNegativeInt = _setting(0, "training", "last epochs, at min-lr")
    decay_epochs: PositiveOrInf = _setting(30.0, "training", "epochs between decays of sched=step")
    decay_rate: NonNegative = _setting(0.1, "training", "factor of sched=step, multistep and plateau")
    smoothing: BelowOne = _setting(0.0, "training", "label smoothing")
    tet: bool = _setting(False, "training", "TET loss: cross-entropy at every time step, and its regulariser")
    tet_means: Number = _setting(1.0, "training", "logit that TET's regulariser draws towards")
    tet_lamb: Probability = _setting(0.001, "training", "weight of TET's regulariser")
    clip_grad: PositiveOrInf | None = _setting(None, "training", "largest norm of the gradient")
    ema: BelowOne | None = _setting(
        None, "training", "decay of the weights' moving average, which is tested in their place; 0: no average"
    )
    amp: Literal["none", "bf16", "fp16"] = _setting("none", "training", "automatic mixed precision")
    pack_spikes: bool = _setting(
        False, "training", "store spikes as bits for the backward pass: less memory, the same gradients", result=False
    )
    compile: bool = _setting(False, "training", "compile the model (on CUDA with CUDA graphs): slow start, fast steps")
    sync_bn: bool = _setting(False, "training", "batch norm over the samples of all processes")
    channels_last: bool = _setting(False, "training", "store images channels-last in memory")
    recompute: bool = _setting(
        False, "training", "activation checkpointing: blocks keep only their inputs for backward", result=False
    )

    seed: NonNegativeInt = _setting(42, "run", "of the initial weights, the order and the augmentation")
    device: str = _setting("auto", "run", "auto, cpu, cuda or a GPU's number", result=False)
    output: str = _setting("runs", "run", "folder that gets one folder per run", result=False)
    resume: str | None = _setting(None, "run", "auto, a run's folder, or a checkpoint", result=False)
    keep_checkpoints: Count | None = _setting(
        None, "run", "keep the weights of every N-th epoch, the first as drawn: epoch-0000, ...", result=False
    )
    eval: bool = _setting(False, "run", "only test what --resume names", result=False)
    fold: bool = _setting(False, "run", "with --eval: norms folded into the convolutions", result=False)
    profile: bool = _setting(
        False, "analysis", "only print operations, energy, firing rates and time by layer, block and step", result=False
    )
    show: str | None = _setting(
        None,
        "pictures",
        "only draw what --resume names: confusion, spikes, attention, gradcam, embedding or landscape",
        result=False,
    )
    images: Names = _setting((), "pictures", "files to look at, in place of test images", result=False)
    query: Pixel | None = _setting(
        None,
        "pictures",
        "attention: [row, column] of the pixel whose token's weights are drawn (default: the centre)",
        result=False,
    )
    layer: str | None = _setting(
        None, "pictures", "gradcam: the layer to look at (default: the last with rows and columns)", result=False
    )
    theme: Literal["light", "dark"] = _setting("light", "pictures", "colours of pictures", result=False)
    x: Grid | None = _setting(
        None,
        "pictures",
        "landscape: LOW:HIGH:COUNT along the first direction, quoted in YAML (default -1:1:51, or around a trajectory)",
        result=False,
    )
    y: Grid | None = _setting(
        None, "pictures", "landscape: the same along a second direction (default: a curve along one)", result=False
    )
    landscape_plane: Literal["random", "trajectory"] = _setting(
        "random",
        "pictures",
        "landscape: random directions, or those in which the kept checkpoints vary most",
        result=False,
    )
    landscape_fixed: Fixed = _setting(
        "norms+biases", "pictures", "landscape: what keeps its trained values; biases: all with one axis", result=False
    )
    landscape_seed: NonNegativeInt = _setting(0, "pictures", "landscape: of the random directions", result=False)
    audit: bool = _setting(False, "analysis", "only print what enters each layer: spikes or not", result=False)
    mac_pj: NonNegative = _setting(4.6, "analysis", "energy of a multiply-accumulate, pJ", result=False)
    ac_pj: NonNegative = _setting(0.9, "analysis", "energy of an accumulation, pJ", result=False)
    byte_pj: NonNegative = _setting(24.96, "analysis", "energy of a byte of memory traffic, pJ", result=False)
    recipe: str | None = _setting(
        None, "run", "recipe name, or none (default: the model's and data set's)", result=False
    )
    config: str | None = _setting(None, "run", "YAML file of settings, or the authors' own", result=False)
    dry_run: Count | None = _setting(
        None, "run", "measure N steps, say what the whole run needs, and stop", result=False
    )
    power: Positive | None = _setting(
        None, "run", "watts that the machine draws, for the energy of --dry-run", result=False
    )
    plugin: Names = _setting((), "run", "file or module that registers parts (repeatable)", result=False)

    def identity(self) -> dict[str, Any]:
        """The settings that determine a run's result, in plain values."""
        chosen = {f.name: getattr(self, f.name) for f in fields(self) if f.metadata["result"]}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in chosen.items()}


def checked(values: Mapping[str, Any], origin: str, further: Iterable[str] = ()) -> dict[str, Any]:
    """Settings by name, `-` as `_`, with values of the right type: only those in `values`.

    Raises UserError: one line that names `origin`, each wrong setting, what it takes and the value that it was given.
    `further` names may be meant too, where a setting is unknown.
    """
    named = {str(name).replace("-", "_"): value for name, value in values.items()}
    settings = validated(Settings, named, origin, "setting", further)
    return {name: getattr(settings, name) for name in named}
