"""Build a run's optimiser, learning-rate schedule and mixing of samples, which are timm's, from its settings.

settings = Settings(opt="adamw", lr=1e-3, sched="cosine", mixup=0.5)
optimizer = build_optimizer(model, settings)
schedule = build_schedule(optimizer, settings)     # schedule.step(epoch)
mix = build_mixup(settings, num_classes=10, count=64)
"""

from __future__ import annotations

import logging
from argparse import Namespace
from typing import Any

import timm
from timm.data.mixup import Mixup
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler
from torch import nn
from torch.optim import Optimizer

from st_utils.data.events.mix import BatchMix
from st_utils.errors import UserError
from st_utils.training.parameter_groups import parameter_groups
from st_utils.training.settings import Settings

logger = logging.getLogger(__name__)


def build_optimizer(model: nn.Module, settings: Settings) -> Optimizer:
    """Build timm's optimiser `settings.opt`; `parameter_groups` says which weights decay. Raises UserError."""
    options = {"momentum": settings.momentum} if settings.opt in ("sgd", "nesterov", "momentum", "rmsprop") else {}
    groups = parameter_groups(model, settings.weight_decay)
    try:
        return create_optimizer_v2(groups, settings.opt, settings.lr, weight_decay=0.0, **options)
    except (AssertionError, UnboundLocalError, RuntimeError, ValueError) as error:
        raise UserError(f"opt {settings.opt!r} is no optimiser of timm here: {error or 'unknown name'}") from None


def build_schedule(optimizer: Optimizer, settings: Settings) -> Any:
    """Build timm's schedule `settings.sched` over `settings.epochs`, the warm-up and the cool-down among them.

    Raises UserError for a schedule that does not fit this version of torch, and for multistep without milestones.
    """
    milestones = _milestones(settings)
    warmup, cooldown = settings.warmup_epochs, settings.cooldown_epochs
    if warmup + cooldown >= settings.epochs and (warmup or cooldown):
        logger.warning("epochs=%d leaves no room for the warm-up and cool-down: without them", settings.epochs)
        warmup = cooldown = 0
    options = Namespace(
        sched=settings.sched,
        epochs=settings.epochs - cooldown,
        min_lr=settings.min_lr,
        warmup_lr=settings.warmup_lr,
        warmup_epochs=warmup,
        cooldown_epochs=cooldown,
        decay_epochs=milestones or settings.decay_epochs,  # timm 0.5 reads multistep's milestones here
        decay_milestones=milestones,
        decay_rate=settings.decay_rate,
        patience_epochs=10,
    )
    try:
        schedule, _ = create_scheduler(options, optimizer)
    except TypeError as error:
        raise UserError(
            f"sched {settings.sched!r} of timm {timm.__version__} does not fit this torch: {error}"
        ) from None
    return schedule


def _milestones(settings: Settings) -> list[int] | None:
    """The milestones for timm, each plus 1; None where the schedule has none.

    In the epoch that starts after t others, timm counts the milestones up to t + 1, torch's MultiStepLR those up to t:
    timm's own [10, 15] would decay one epoch early, after 9 and 14 epochs.
    """
    given, epochs = settings.milestones, settings.epochs
    if settings.sched != "multistep":
        if given:
            logger.warning("milestones=%s is ignored: sched=%s, not multistep", list(given), settings.sched)
        return None
    if not given:
        raise UserError("sched=multistep needs milestones, such as --milestones '[10, 15]'")
    if given[-1] >= epochs:
        beyond = [milestone for milestone in given if milestone >= epochs]
        logger.warning("milestones=%s: a run of %d epochs never trains after %s", list(given), epochs, beyond)
    return [milestone + 1 for milestone in given]


def build_mixup(settings: Settings, num_classes: int, count: int) -> BatchMix | None:
    """Build the mixing of a micro-batch of `count` samples: timm's mixup and cutmix, and EventMix; None if all are off.

    Raises UserError for an odd `count`: samples are mixed in pairs.
    """
    if not settings.mixup and not settings.cutmix and not settings.event_mix:
        return None
    if count % 2:
        raise UserError(f"mixup and cutmix need an even batch_size, not {count} images in a micro-batch")
    mixup = Mixup(
        mixup_alpha=settings.mixup,
        cutmix_alpha=settings.cutmix,
        prob=settings.mixup_prob,
        switch_prob=settings.mixup_switch_prob,
        label_smoothing=settings.smoothing,
        num_classes=num_classes,
    )
    return BatchMix(
        mixup if settings.mixup or settings.cutmix else None,
        event_mix=settings.event_mix,
        prob=settings.mixup_prob,
        share=settings.mixup_switch_prob,
        smoothing=settings.smoothing,
        classes=num_classes,
    )
