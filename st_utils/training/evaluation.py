"""Test a model: loss, accuracy and firing rates.

    scores = evaluate(model, loader)
    scores.top1, scores.firing["blocks.0.attention.node"]
    confusion(scores.predictions, num_classes=10).matrix

Of several processes each tests its share of the images; the scores are those of all of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from st_utils.analysis.confusion import Predictions
from st_utils.analysis.firing import FiringRates
from st_utils.training import distributed


class Scores(NamedTuple):
    """Means over all images of all processes.

    Attributes:
        loss: cross-entropy.
        top1, top5: accuracy in percent.
        firing: spikes per neuron per step, by layer.
        firing_rate: the mean over all neurons; None without any.
        predictions: of this process's images alone, numbered from 0 in their order.
    """

    loss: float
    top1: float
    top5: float
    firing: dict[str, float]
    firing_rate: float | None
    predictions: Predictions


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    autocast: Callable[[], AbstractContextManager] = contextlib.nullcontext,
    after_batch: Callable[[], None] = lambda: None,
    alone: bool = False,
) -> Scores:
    """Test a model, which is left in evaluation mode.

    Args:
        batches: this process's share of (images, labels), on the model's device. Each process has the same number of
            batches, of which the last may be empty.
        autocast: makes the context that the model runs in.
        after_batch: called after each batch; may raise to end the test.
        alone: the batches are the whole test set; the scores are this process's own, no other is waited for.
    """
    model.eval()
    rates, totals = FiringRates(model), np.zeros(4)
    said: list[tuple[Tensor, Tensor, Tensor]] = []  # labels, predicted classes and losses of each batch
    with rates.counting():
        for inputs, labels in batches:
            if len(labels):  # else the last batch had fewer images than there are processes
                with autocast():
                    logits = model(inputs).float()
                loss = nn.functional.cross_entropy(logits, labels, reduction="sum").item()
                ranked = logits.topk(min(5, logits.shape[1])).indices
                right = ranked == labels[:, None]
                totals += loss, right[:, 0].sum().item(), right.sum().item(), len(labels)
                said.append((labels, ranked[:, 0], nn.functional.cross_entropy(logits, labels, reduction="none")))
            after_batch()
    if distributed.world_size() > 1 and not alone:
        rates.add_other_processes(distributed.sums)
        totals = distributed.sums(totals)
    loss, top1, top5, count = map(float, totals)
    return Scores(
        loss=loss / count,
        top1=100 * top1 / count,
        top5=100 * top5 / count,
        firing=rates.by_layer(),
        firing_rate=rates.mean(),
        predictions=_predictions(said),
    )


def _predictions(said: list[tuple[Tensor, Tensor, Tensor]]) -> Predictions:
    """The batches' labels, predicted classes and losses as one; there may be no batch."""
    empty = (torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), torch.empty(0))
    labels, predicted, losses = (torch.cat(column).cpu().numpy() for column in zip(*(said or [empty]), strict=True))
    return Predictions(labels, predicted, losses.astype(np.float64), np.arange(len(labels)))
