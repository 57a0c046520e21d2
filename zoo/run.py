"""A run, from Python: its settings make data, model and trainer, which train, test or measure.

result = zoo.run(model="spikformer", attention="statten", epochs=3)
result.summary["top1"], result.folder, result.model(images)
zoo.evaluate(result.folder).summary["top1"]  # the same
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

import registry
import zoo
from registry import SpecError
from st_utils.analysis import tables
from st_utils.backbone.domains import add_source_head
from st_utils.data import DataSet, SourceImages
from st_utils.data.seeding import random_state_kept
from st_utils.errors import UserError
from st_utils.layer.fold_norms import fold_norms
from st_utils.training import distributed, launch
from st_utils.training.dry_run import dry_run
from st_utils.training.identity import identity
from st_utils.training.resume import agreed_run
from st_utils.training.run_folder import RunFolder
from st_utils.training.settings import Settings
from st_utils.training.signals import Stopped
from st_utils.training.trainer import Trainer, load_weights, seed_everything
from zoo.resolve import load_plugins, plain_settings, resolve
from zoo.show import Subject, check_kind, draw

logger = logging.getLogger("zoo")


@dataclass(frozen=True, eq=False)
class Result:
    """What a run gives.

    Attributes:
        summary: of training, the content of summary.json; of a test, `top1`, `top5`, `test_loss` and `firing_rate`; of
            a profile, its `layers` and `totals`; of a dry run, its figures. Empty on all processes but the first of a
            training run.
        model: as it was tested (the moving average of the weights where there is one), in evaluation mode. None of a
            dry run, and of a finished run whose checkpoints are gone.
        folder: of the run; None where there is none.
        text: what the command line prints of a test or a profile.
    """

    summary: dict[str, Any]
    model: nn.Module | None = field(default=None, repr=False)
    folder: Path | None = None
    text: str = field(default="", repr=False)

    def __repr__(self) -> str:
        figures = [
            f"{name}={self.summary[name]:.4g}" for name in ("top1", "best_top1", "epochs") if name in self.summary
        ]
        return f"Result({', '.join([*figures, f'folder={str(self.folder)!r}' if self.folder else 'folder=None'])})"


def run(**settings: Any) -> Result:
    """Train, or with `eval`, `profile`, `audit` or `dry_run` only test or measure, as `python main.py` does.

    The keywords are the command line's options with `_` for `-`: `zoo.run(epochs=3, train_images=1000)`. What
    is not given comes from `config`, the recipe of model and data set, or the default, in this order.
    `resume="auto"` goes on with the run of the same settings, data and code of parts; of a finished one it returns the
    summary and the trained model.

    Ctrl-C, or a notebook's stop button, ends the step, leaves a checkpoint and raises KeyboardInterrupt; SIGTERM raises
    `Stopped`. Signal handlers are those of before when the call returns or raises, and so are the states of the random
    generators of Python, numpy and torch. Where nobody has set up logging, the lines of the logger "zoo" are printed
    during the call (`logging.getLogger("zoo").setLevel("WARNING")` silences all but warnings). Plug-ins stay loaded.

    Left alone, and set by main.py for its own process: filters of warnings. `import zoo` sets `OMP_WAIT_POLICY=PASSIVE`
    unless it is set: threads that spin while they wait slow a run tenfold where other processes use the same cores. It
    counts only where torch was not imported before.

    Raises:
        UserError, SpecError: a mistake, in one line, where the command line prints it and ends with status 2.
    """
    with _lines_printed(), random_state_kept(gpus=True):
        try:
            return carry_out(plain_settings(settings), "zoo.run")
        except (UserError, SpecError, Stopped, KeyboardInterrupt) as error:
            # a notebook keeps the last traceback, and with it, but for this, the model and the folder's lock
            traceback.clear_frames(error.__traceback__)
            if isinstance(error, Stopped) and error.status == 128 + signal.SIGINT:
                words = str(error).replace("the same command with --resume auto", 'the same call with resume="auto"')
                raise KeyboardInterrupt(words) from None  # which a loop over runs that catches Exception lets through
            raise


def evaluate(resume: str | os.PathLike, **settings: Any) -> Result:
    """Test a trained model: `resume` is its run's folder or a checkpoint; the settings are those of `run`."""
    return run(**settings, resume=resume, eval=True)


def profile(resume: str | os.PathLike | None = None, **settings: Any) -> Result:
    """Operations, energy, firing rates and time by layer of a trained model, or of a new one; settings as of `run`."""
    return run(**settings, resume=resume, profile=True)


def show(kind: str, resume: str | os.PathLike, **settings: Any) -> list[Path]:
    """Draw a trained model: a picture of `kind`, see zoo.show.KINDS, of a run's folder or a checkpoint.

    `images=[...]` are the files to look at, `theme="dark"` the colours. Returns the paths of the pictures.
    """
    return [Path(path) for path in run(**settings, resume=resume, show=kind).summary["pictures"]]


def _signature() -> inspect.Signature:
    """All keywords of `run`, for help() and completion."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    known = [inspect.Parameter(f.name, keyword, default=f.default, annotation=f.type) for f in fields(Settings)]
    parts = [inspect.Parameter(kind, keyword, default=None, annotation="str | None") for kind in registry.PART_KINDS]
    return inspect.Signature([known[0], *parts, *known[1:]], return_annotation="Result")


run.__signature__ = _signature()


def carry_out(given: Mapping[str, Any], origin: str) -> Result:
    """A run of the given settings; `origin` is what errors call the place where they were given."""
    load_plugins(given)
    if isinstance(given.get("show"), str):
        check_kind(given["show"])  # before the run is looked for
    settings, recipe = resolve(given, origin)
    if settings.show:
        check_kind(settings.show)  # of a --config file
    for name, word in (("eval", "tests"), ("show", "draws")):
        if getattr(settings, name) and not settings.resume:
            raise UserError(f"--{name} {word} a trained model: name it with --resume PATH")
    device = distributed.device_of(settings.device)
    with distributed.process_group(device):
        data = launch.load_data(settings)
        only_tested = settings.eval or settings.profile or settings.audit or settings.show
        source = None if only_tested else launch.load_source(settings, data)
        if settings.dry_run is not None:
            return _measure(settings, recipe, device, data, source)
        return _train_or_test(settings, recipe, device, data, source)


def _train_or_test(
    settings: Settings, recipe: str, device: torch.device, data: DataSet, source: SourceImages | None
) -> Result:
    only_tested = settings.eval or settings.profile or settings.audit or settings.show
    record, folder, state, summary = agreed_run(settings, data, source and source.data)
    path = folder and folder.path
    if summary and not only_tested:
        if folder:
            launch.show(folder, summary, "already finished")
        return Result(summary, _trained_model(settings, device, data, state), path)
    if only_tested:
        trainer = _trainer(settings, device, data, None, record)
        if settings.show:
            return _draw(trainer, data, state, path)
        return _test(trainer, state, path) if settings.eval else _analyse(trainer, state, path)
    trainer = _trainer(settings, device, data, source, record)
    _refuse_a_second_head_alone(trainer)
    if state:
        trainer.load(state)
    if trainer.rank == 0:
        known = identity(settings, record)
        folder = folder or RunFolder.create(settings.output, known, launch.run_name(settings))
        folder.record_further(known)
    with folder or contextlib.nullcontext():
        if folder:
            folder.write_args({**asdict(settings), "recipe": recipe, "full_spec": record["full_spec"]})
        launch.describe(trainer, recipe, folder)
        summary = trainer.fit(folder)
        if folder:
            launch.draw(folder, trainer, data)
        draw("confusion", Subject(trainer, data, folder.path / "pictures" if folder else Path()))  # of all processes
        if folder:
            launch.show(folder, summary, "done")
    return Result(folder.read_summary() if folder else {}, trainer.tested.eval(), folder and folder.path)


def _test(trainer: Trainer, state: dict[str, Any], folder: Path | None) -> Result:
    settings = trainer.settings
    load_weights(trainer.model, state)
    if settings.fold:
        trainer.model = fold_norms(trainer.model)
    figures = trainer.test()
    text = f"{settings.model} on {settings.dataset}: top-1 {figures['top1']:.2f} %, loss {figures['test_loss']:.4f}"
    return Result(figures, trainer.tested.eval(), folder, text if trainer.rank == 0 else "")


def _analyse(trainer: Trainer, state: dict[str, Any] | None, folder: Path | None) -> Result:
    """What the model costs and what runs in it, written beside the run, or into --output."""
    settings = trainer.settings
    if state:
        load_weights(trainer.model, state)
    else:
        logger.info("weights as drawn: name a trained run with --resume PATH for its firing rates")
    found = trainer.profile()
    table = tables.table(found, audit=settings.audit)
    at = folder or Path(settings.output) / f"profile-{launch.run_name(settings)}"
    try:
        text = f"{table}\nwritten: {tables.write(found, at, settings.model)}"
    except UserError:
        logger.info("%s", table)  # it was measured, also where it can't be written
        raise
    return Result(found, trainer.tested.eval(), folder, text)


def _draw(trainer: Trainer, data: DataSet, state: dict[str, Any], folder: Path | None) -> Result:
    """Pictures of a trained model, written into its run's folder, or into --output."""
    settings = trainer.settings
    load_weights(trainer.model, state)
    at = (folder or Path(settings.output) / launch.run_name(settings)) / "pictures"
    paths = draw(settings.show, Subject(trainer, data, at, settings.images, settings.theme))
    text = "\n".join(f"written: {path}" for path in paths)
    return Result({"pictures": [str(path) for path in paths]}, trainer.tested.eval(), folder, text)


def _measure(
    settings: Settings, recipe: str, device: torch.device, data: DataSet, source: SourceImages | None
) -> Result:
    """What the run would take; nothing is left behind."""
    trainer = _trainer(settings, device, data, source, {})
    _refuse_a_second_head_alone(trainer)
    launch.describe(trainer, recipe, None)
    measured = dry_run(trainer, settings.dry_run, settings.power)
    for line in measured.lines():
        logger.info(line)
    return Result(measured.figures())


def _trainer(
    settings: Settings, device: torch.device, data: DataSet, source: SourceImages | None, record: dict[str, Any]
) -> Trainer:
    """A trainer with a freshly drawn model; `record` says what the run is made of. Only training needs the source."""
    loaders = launch.make_loaders(data, source, settings, settings.img_size or data.img_size, device)
    return Trainer(_model(settings, device, data), *loaders, data.num_classes, settings, record)


def _refuse_a_second_head_alone(trainer: Trainer) -> None:
    """Raise UserError for a model made for two domains, of which one would never be seen."""
    if trainer.transfer is None and hasattr(trainer.model, "coefficient"):
        raise UserError(
            f"{trainer.settings.model} learns from images and events: name a data set of images with --source, or "
            "leave out transfer=true"
        )


def _model(settings: Settings, device: torch.device, data: DataSet) -> nn.Module:
    """The model of a run on its device, its weights drawn from the seed."""
    side = settings.img_size or data.img_size
    seed_everything(settings.seed)
    model = zoo.create_model(settings.model, num_classes=data.num_classes, in_channels=data.in_channels, img_size=side)
    if settings.source:
        add_source_head(model, launch.model_step(settings.model))
    return launch.prepared(model, settings, device)


def _trained_model(
    settings: Settings, device: torch.device, data: DataSet, state: dict[str, Any] | None
) -> nn.Module | None:
    """The model of a finished run as it was tested; None without a checkpoint."""
    if state is None:
        return None
    model = _model(settings, device, data)
    load_weights(model, state)
    return model.eval()


@contextlib.contextmanager
def _lines_printed() -> Iterator[None]:
    """Print what the logger "zoo" tells, where neither a level nor a handler of the caller's decides on that."""
    if logger.level or logger.hasHandlers() or distributed.rank() > 0:
        yield
        return
    handler = logging.StreamHandler(sys.stdout)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
