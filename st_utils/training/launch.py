"""From settings to a run: its folder, its trainer, and what it says of itself."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import nn

import registry
from st_utils.data import Augment, DataSet, EpochLoader, FrameData, Share, SourceImages, build_loaders
from st_utils.errors import UserError
from st_utils.training import distributed, memory
from st_utils.training.run_folder import RunFolder
from st_utils.training.settings import Settings
from st_utils.training.sync_norm import synchronised
from st_utils.training.trainer import Trainer

logger = logging.getLogger("zoo")


def load_data(settings: Settings) -> DataSet:
    """The data set, downloaded and cached by one process of each machine."""
    with distributed.first_of_machine_first():
        data = registry.create("dataset", settings.dataset, **_offer(settings))
    if isinstance(data, FrameData) and data.step != (step := model_step(settings.model)):
        raise UserError(
            f"{settings.dataset} has {data.step} frames and the model step={step}: make them equal by --step"
        )
    if settings.event_size and not isinstance(data, FrameData):
        logger.warning("event_size=%d is ignored: %s is no event data set", settings.event_size, data.name)
    return data


def load_source(settings: Settings, data: DataSet) -> SourceImages | None:
    """The images of transfer learning, checked to fit the events; None without --source. Raises UserError."""
    if settings.source is None:
        return None
    offer = {**_offer(settings), "data_dir": settings.source_dir or settings.data_dir}
    with distributed.first_of_machine_first():
        images = registry.create("dataset", settings.source, **offer)
    source = SourceImages(images, settings.source_ratio, settings.hsv, settings.source_standardise)
    source.check(data)
    if images.class_names != data.class_names:
        logger.warning(
            "classes are paired by number: %s of %s with %s of %s, and so on",
            images.class_names[0],
            images.name,
            data.class_names[0],
            data.name,
        )
    return source


def _offer(settings: Settings) -> dict[str, Any]:
    """What a data set is offered: where its files are, and, for event frames, how many and how large."""
    size = settings.event_size or settings.img_size
    places = {"data_dir": settings.data_dir, "cache_dir": settings.cache_dir, "download": settings.download}
    return {**places, "step": model_step(settings.model), **({"event_size": size} if size else {})}


def model_step(spec: str) -> int:
    """The time steps of a model's spec, or its default. Raises UserError for a model that takes none."""
    model = registry.entry("model", spec)
    if "step" not in model.params:
        raise UserError(f"model {model.name!r} takes no step: give its constructor step: int = 4, the time steps T")
    return registry.parse(spec).args.get("step", model.params["step"].default)


def make_loaders(
    data: DataSet, source: SourceImages | None, settings: Settings, side: int, device: torch.device
) -> tuple[EpochLoader, EpochLoader]:
    """The loaders of training and test images, of this process's share; with a source, of pairs for training."""
    world, accum = distributed.world_size(), settings.accum_steps
    if settings.batch_size % (world * accum):
        raise UserError(
            f"batch_size={settings.batch_size} can't be shared evenly by {world} processes with "
            f"accum_steps={accum}: choose a multiple of {world * accum}"
        )
    augment = Augment(
        settings.auto_augment,
        settings.hflip,
        settings.color_jitter,
        settings.scale,
        settings.ratio,
        settings.crop_padding,
        settings.reprob,
        settings.remode,
        settings.recount,
        settings.interpolation,
    )
    return build_loaders(
        data,
        side,
        settings.batch_size,
        settings.workers,
        augment,
        settings.seed,
        settings.crop_pct,
        _train_images(settings, data),
        settings.test_images,
        pin_memory=device.type == "cuda",
        share=Share(distributed.rank(), world, accum),
        event_augment=settings.event_augment,
        source=source,
    )


def _train_images(settings: Settings, data: DataSet) -> int | None:
    """How many images of the training split are used; None for all."""
    if settings.target_ratio == 1:
        return settings.train_images
    return max(1, round(settings.target_ratio * (settings.train_images or len(data.train))))


def prepared(model: nn.Module, settings: Settings, device: torch.device) -> nn.Module:
    """The model on its device, with the settings that change how it is computed."""
    if settings.sync_bn:
        model = synchronised(model, device)
    if settings.recompute:
        memory.recompute_blocks(model)
    return model.to(device, memory_format=torch.channels_last if settings.channels_last else torch.preserve_format)


def run_name(settings: Settings) -> str:
    """How the run's folder is called: model, attention, data sets and seed."""
    model = registry.parse(settings.model)
    sets = [registry.parse(spec).name for spec in (settings.source, settings.dataset) if spec]
    parts = [str(getattr(model.args.get("attention"), "name", "")), *sets]
    return "-".join(p for p in (model.name, *parts, f"s{settings.seed}") if p)


def describe(trainer: Trainer, recipe: str, folder: RunFolder | None) -> None:
    """Log what is about to run."""
    settings, world = trainer.settings, distributed.world_size()
    parameters = sum(p.numel() for p in trainer.model.parameters())
    train, test = len(trainer.train_loader.source), len(trainer.test_loader.source)
    share = f" = {world} processes x {settings.accum_steps} micro-batches x {len(trainer.places[0])}"
    share = share if world * settings.accum_steps > 1 else ""
    logger.info("model    %s", settings.model)
    logger.info("         %s parameters on %s", f"{parameters:,}", trainer.device)
    logger.info("data     %s: %s training and %s test images", settings.dataset, f"{train:,}", f"{test:,}")
    if trainer.transfer:
        logger.info("source   %s: %s", settings.source, trainer.transfer.words(trainer.train_loader))
    logger.info("recipe   %s: %s, lr %g as it is, not scaled by the batch", recipe, settings.opt, settings.lr)
    logger.info("batch    %d images in a step%s", settings.batch_size, share)
    if folder:
        where = f" (resumed in epoch {trainer.epoch + 1} after step {len(trainer.losses)})" if trainer.losses else ""
        where = where or (f" (resumed after epoch {trainer.epoch})" if trainer.epoch else "")
        logger.info("folder   %s%s", folder.path, where)


def draw(folder: RunFolder, trainer: Trainer, data: DataSet) -> None:
    """Write the run's picture."""
    from st_utils.pictures.run import draw_run

    images, labels = next(trainer.batches(trainer.test_loader, 0))
    images, labels = images[:24], labels[:24].cpu()
    with torch.no_grad():
        logits = trainer.tested.eval()(images).float().cpu()
    title = f"{trainer.settings.model}\non {data.name}"
    rows = folder.read_metrics()
    draw_run(folder.path / "run.png", title, rows, trainer.firing, images, labels, logits, data.class_names)


def show(folder: RunFolder, summary: dict[str, Any], word: str) -> None:
    """Log the result of a run."""
    logger.info(
        "%s: top-1 %.2f %% after %d epochs (best %.2f %%), %.0f s of training, %.0f images/s; picture: %s",
        word,
        summary["top1"],
        summary["epochs"],
        summary["best_top1"],
        summary["train_seconds"],
        summary["images_per_second"],
        folder.path / "run.png",
    )
