"""What training does with two domains: the slide from images to events, and the loss of both.

    transfer = Transfer(settings, batches=len(train_loader))
    transfer.probability(epoch=3, number=7)   # that an image is replaced by its event sample
    found = transfer(model, part)             # loss, right answers and terms of a micro-batch of `DomainPair`s

He et al. 2024, arXiv:2303.13077. `transfer.py` has the formulas; here they meet the settings, the random numbers of a
step, and the other processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from st_utils.batch_share import rand_per_image
from st_utils.data import DomainPair, EpochLoader
from st_utils.errors import UserError
from st_utils.training import distributed
from st_utils.training.losses import correct
from st_utils.training.settings import Settings
from st_utils.training.transfer import TransferLoss, TransferTerms, replacement_probability, value_frames

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

HALF = (torch.bfloat16, torch.float16)
TERMS = ("source", "target", "domain")  # of `TransferTerms`, unweighted


class Seen(NamedTuple):
    """Of a micro-batch: the loss's terms, and how many event samples are classified right."""

    terms: TransferTerms
    correct: Tensor


class Transfer:
    """The slide and the loss of a run with --source.

    Args:
        settings: of the run.
        batches: steps of an epoch.

    Raises:
        UserError: settings that do not go together with two domains.
    """

    def __init__(self, settings: Settings, batches: int):
        if settings.mixup or settings.cutmix or settings.event_mix:
            raise UserError("mixup, cutmix and event_mix mix samples of one domain: leave them out, or --source")
        if settings.accum_steps > 1 and settings.domain_weight:
            raise UserError(
                "the distance between the domains compares all samples of a batch, which --accum-steps splits: "
                "leave it out, or give --domain-weight 0"
            )
        self.settings, self.batches = settings, batches
        self.loss = TransferLoss(
            tet=settings.tet,
            regularize=settings.regularize,
            domain_weight=settings.domain_weight,
            tet_weight=settings.tet_lamb,
            tet_mean=settings.tet_means,
            smoothing=settings.smoothing,
        )

    def probability(self, epoch: int, number: int) -> float:
        """The probability that an image is replaced in step `number` of an epoch, both counted from 1."""
        settings = self.settings
        power, sliding = settings.sliding_power, settings.sliding
        return replacement_probability(epoch - 1, number - 1, settings.epochs, self.batches, power, sliding)

    def slide(self, pair: DomainPair, probability: float) -> DomainPair:
        """Turn images `[B, 1, H, W]` into frames like those of the events, and replace some of them by these.

        It draws one number per sample, the same on one process and on several.
        """
        step, channels = pair.events.shape[1:3]
        frames = value_frames(pair.images, step, channels)
        drawn = rand_per_image((len(frames),), axis=0, device=frames.device) < probability
        return DomainPair(torch.where(drawn.view(-1, 1, 1, 1, 1), pair.events, frames), pair.events)

    def __call__(
        self,
        model: nn.Module,
        pair: DomainPair,
        labels: Tensor,
        coefficient: nn.ParameterList,
        probability: float,
        autocast: Callable[[], AbstractContextManager],
    ) -> Seen:
        """The loss of a micro-batch.

        Args:
            model: gives what `forward_domains` gives.
            labels: class numbers `[B]`, of both domains.
            coefficient: the model's, one per time step.
            probability: of replacing an image.
            autocast: makes the context in which the model runs; the loss is computed in full precision.
        """
        with autocast():
            logits, features = model(*self.slide(pair, probability))
        logits, features = (x.float() if x.dtype in HALF else x for x in (logits, features))
        if self.settings.domain_weight:
            features = distributed.joined(features, axis=2)  # the distance is one of the whole batch
        coefficient = list(coefficient) if self.settings.regularize else ()
        return Seen(self.loss(logits, features, labels, coefficient), correct(logits[1], labels))

    def words(self, loader: EpochLoader) -> str:
        """The source, and what is done with it, for the screen."""
        settings, source = self.settings, loader.source
        slide = f"replaced at (share of training done)^{settings.sliding_power:g}" if settings.sliding else "no sliding"
        loss = f"domain weight {settings.domain_weight:g}" + (", TET" if settings.tet else "")
        loss += ", learned weights of the steps" if settings.regularize else ""
        return f"{len(source.images.samples):,} images, paired with events by class; {slide}; {loss}"
