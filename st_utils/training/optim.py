"""Optimiser, schedule, loss and mixing of a run: timm's, chosen by the settings."""

from __future__ import annotations

import logging
from argparse import Namespace
from typing import Any

from timm.data.mixup import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler
from torch import nn
from torch.optim import Optimizer

from st_utils.errors import UserError
from st_utils.training.settings import Settings

logger = logging.getLogger(__name__)


def build_optimizer(model: nn.Module, settings: Settings) -> Optimizer:
    """timm's optimiser by name; biases, norms and other vectors get no weight decay."""
    options = {"momentum": settings.momentum} if settings.opt in ("sgd", "nesterov", "momentum", "rmsprop") else {}
    try:
        return create_optimizer_v2(model, settings.opt, settings.lr, settings.weight_decay, **options)
    except (AssertionError, UnboundLocalError, RuntimeError) as error:
        raise UserError(f"opt {settings.opt!r} is no optimiser of timm here: {error or 'unknown name'}") from None


def build_schedule(optimizer: Optimizer, settings: Settings) -> Any:
    """timm's schedule by name, over `epochs` with the warm-up at their start and the cool-down at their end."""
    warmup, cooldown = settings.warmup_epochs, settings.cooldown_epochs
    if warmup + cooldown >= settings.epochs and (warmup or cooldown):
        logger.warning("epochs=%d leaves no room for the warm-up and cool-down: without them", settings.epochs)
        warmup = cooldown = 0
    schedule, _ = create_scheduler(
        Namespace(
            sched=settings.sched,
            epochs=settings.epochs - cooldown,
            min_lr=settings.min_lr,
            warmup_lr=settings.warmup_lr,
            warmup_epochs=warmup,
            cooldown_epochs=cooldown,
            decay_epochs=settings.decay_epochs,
            decay_rate=settings.decay_rate,
            patience_epochs=10,
        ),
        optimizer,
    )
    if schedule is None:
        raise UserError(f"sched {settings.sched!r} is not a schedule: cosine, tanh, step, multistep, plateau, poly")
    return schedule


def build_mixup(settings: Settings, num_classes: int) -> Mixup | None:
    """timm's mixup and cutmix of a batch, or None when both are off."""
    if not settings.mixup and not settings.cutmix:
        return None
    if settings.batch_size % 2:
        raise UserError(f"mixup and cutmix need an even batch_size, not {settings.batch_size}")
    return Mixup(
        mixup_alpha=settings.mixup,
        cutmix_alpha=settings.cutmix,
        prob=settings.mixup_prob,
        switch_prob=settings.mixup_switch_prob,
        label_smoothing=settings.smoothing,
        num_classes=num_classes,
    )


def build_loss(settings: Settings, mixed: bool) -> nn.Module:
    """Cross-entropy of the logits: against mixed labels, smoothed ones, or as they are."""
    if mixed:
        return SoftTargetCrossEntropy()
    return LabelSmoothingCrossEntropy(settings.smoothing) if settings.smoothing else nn.CrossEntropyLoss()
