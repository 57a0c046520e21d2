"""One step of training: forward and backward over the micro-batches, a look at the numbers, the optimiser's update.

    done = take_step(trainer, images, labels, epoch=1, number=1)
    done.loss, done.correct

A step is a function of the state before it and of (seed, epoch, step): every random number in it comes from generators
that are seeded at its start, on every process and for every micro-batch alike. One process therefore draws what several
draw, and a step that is computed again gives the same numbers.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from st_utils.batch_share import micro_batch
from st_utils.data import DomainPair
from st_utils.data.seeding import reseed
from st_utils.errors import UserError
from st_utils.kernels.spike_bits.saved_tensors import packed_spikes
from st_utils.training import distributed
from st_utils.training.diagnosis import why_step_stopped
from st_utils.training.finite import clip_gradients
from st_utils.training.losses import correct
from st_utils.training.transfer_step import TERMS

if TYPE_CHECKING:
    from st_utils.training.trainer import Trainer

SKIPS = 20  # steps in a row that fp16's scaler may leave out, and more while its scale, halved at each, is above 1


class Part(NamedTuple):
    """A micro-batch: images, or images and events, labels, and their positions in the step's batch."""

    inputs: Tensor | DomainPair
    labels: Tensor
    places: Tensor


class PartLoss(NamedTuple):
    """The loss of a micro-batch, how many of its images are classified right, and the terms of a transfer loss."""

    loss: Tensor
    correct: Tensor
    terms: Sequence[Tensor] = ()


class StepResult(NamedTuple):
    """Of a step of all processes: the mean loss and its terms, the images classified right, whether one is to stop."""

    loss: float
    correct: int
    stop: bool
    terms: tuple[float, ...] = ()


def seed_everything(seed: int, epoch: int = 0, step: int = 0) -> None:
    """Seed Python's, numpy's and torch's generators for one step (epoch 0, before the first: the weights)."""
    reseed((seed, epoch, step), torch.manual_seed)


def take_step(trainer: Trainer, inputs: Tensor | DomainPair, labels: Tensor, epoch: int, number: int) -> StepResult:
    """Take step `number` of an epoch, both counted from 1, on this process's share of the batch.

    Raises UserError, the same in all processes, where loss, weights or gradients are not finite.
    """
    trainer.start_average()
    count, losses, hits, terms = len(trainer.places), [], [], []
    parts = [Part(*part) for part in zip(inputs.chunk(count), labels.chunk(count), trainer.places, strict=True)]
    trainer.optimizer.zero_grad(set_to_none=True)
    for part in parts:
        waits = distributed.world_size() > 1 and part is not parts[-1]  # gradients are exchanged once in a step
        syncing = trainer.parallel.no_sync() if waits else contextlib.nullcontext()
        with syncing, micro_batch(part.places, trainer.settings.batch_size):
            found = part_loss(trainer, trainer.parallel, part, epoch, number)
            value = found.loss / count
            trainer.scaler.scale(value).backward()
        losses.append(value.detach())
        hits.append(found.correct)
        terms.append([term.item() / count / distributed.world_size() for term in found.terms])
    trainer.scaler.unscale_(trainer.optimizer)
    loss, norm, bad = trainer.watch.look(losses)
    counts = trainer.requests.asked, bad == "weights", bad == "gradients", sum(hits).item()
    summed = distributed.sums([loss / distributed.world_size(), *counts, *map(sum, zip(*terms, strict=True))])
    mean, asked, bad_weights, bad_gradients, right, *terms = summed
    trainer.skipped = trainer.skipped + 1 if bad_gradients else 0
    may_skip = trainer.scaler.is_enabled() and (trainer.skipped < SKIPS or trainer.scaler.get_scale() > 1)
    if not math.isfinite(mean) or bad_weights or (bad_gradients and not may_skip):
        again = partial(part_loss, trainer, trainer.called, epoch=epoch, number=number)
        raise why_step_stopped(trainer, mean, parts, again, f"epoch {epoch}, step {number}")
    if not bad_gradients:  # else the scaler's update, below, halves its scale
        if trainer.settings.clip_grad is not None:
            clip_gradients(trainer.watch.gradients().values(), trainer.settings.clip_grad, norm)
        trainer.scaler.step(trainer.optimizer)
    trainer.scaler.update()
    if trainer.ema:
        trainer.ema.update(trainer.model)
    return StepResult(mean, int(right), asked > 0, tuple(terms))


def part_loss(trainer: Trainer, model: nn.Module, part: Part, epoch: int, number: int) -> PartLoss:
    """The loss of one micro-batch, mixed by mixup or cutmix where they are on; the same if called again."""
    settings = trainer.settings
    seed_everything(settings.seed, epoch, number)
    inputs, labels = part.inputs, part.labels
    packed = packed_spikes if settings.pack_spikes else contextlib.nullcontext
    if trainer.transfer:
        probability = trainer.transfer.probability(epoch, number)
        with packed():
            seen = trainer.transfer(
                model, inputs, labels, trainer.model.coefficient, probability, autocast=trainer.autocast
            )
        terms = [getattr(seen.terms, name).detach() for name in TERMS]
        return PartLoss(seen.terms.total, seen.correct, terms)
    off = settings.mixup_off_epoch
    if trainer.mixup is not None and (not off or epoch <= off):
        inputs, labels = trainer.mixup(inputs.clone(), labels)
    with trainer.autocast(), packed():
        logits = model(inputs, per_step=True) if settings.tet else model(inputs)
        if logits.dim() != 2 + settings.tet:
            raise UserError(
                f"the model gives {list(logits.shape)} in training: leave out distill=true, no teacher is here"
            )
        return PartLoss(trainer.loss(logits, labels), correct(logits, labels))
