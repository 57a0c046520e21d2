"""Test a model: loss, accuracy and firing rates.

    scores = evaluate(model, loader)
    scores.top1, scores.firing["blocks.0.attention.node"]

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

from st_utils.analysis.firing import FiringRates
from st_utils.training import distributed


class Scores(NamedTuple):
    """Means over all images of all processes.

    Attributes:
        loss: cross-entropy.
        top1, top5: accuracy in percent.
        firing: spikes per neuron per step, by layer.
        firing_rate: the mean over all neurons; None without any.
    """

    loss: float
    top1: float
    top5: float
    firing: dict[str, float]
    firing_rate: float | None


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
    with rates.counting():
        for inputs, labels in batches:
            if len(labels):  # else the last batch had fewer images than there are processes
                with autocast():
                    logits = model(inputs).float()
                loss = nn.functional.cross_entropy(logits, labels, reduction="sum").item()
                ranked = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
                totals += loss, ranked[:, 0].sum().item(), ranked.sum().item(), len(labels)
            after_batch()
    if distributed.world_size() > 1 and not alone:
        rates.add_other_processes(distributed.sums)
        totals = distributed.sums(totals)
    loss, top1, top5, count = map(float, totals)
    return Scores(loss / count, 100 * top1 / count, 100 * top5 / count, rates.by_layer(), rates.mean())
