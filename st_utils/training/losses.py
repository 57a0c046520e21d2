"""Losses of logits against labels, `[B]` class numbers or, after mixing, `[B, num_classes]` shares of classes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from st_utils.errors import UserError
from st_utils.training.settings import Settings


class CrossEntropy(nn.Module):
    """Cross-entropy of `[B, num_classes]` logits, the mean over the batch: -sum_k q_k log softmax(logits)_k.

    q is 1 - smoothing for the label and smoothing / num_classes more for every class (Szegedy et al. 2016,
    arXiv:1512.00567); labels that are shares of classes are q as they are.
    """

    def __init__(self, smoothing: float = 0.0):
        super().__init__()
        if not 0 <= smoothing < 1:
            raise UserError(f"smoothing is {smoothing}: give 0 or more, below 1")
        self.smoothing = smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=0.0 if labels.dim() == 2 else self.smoothing)


class TET(nn.Module):
    """Temporal efficient training (Deng et al. 2022, arXiv:2202.11946) of `[T, B, num_classes]` logits.

    (1 - lamb) 1/T sum_t CE(logits_t, labels) + lamb MSE(logits, means), the second over all steps, samples
    and classes: it draws every step's logits towards the constant `means`.
    """

    def __init__(self, cross_entropy: nn.Module, means: float = 1.0, lamb: float = 0.001):
        super().__init__()
        if not 0 <= lamb <= 1:
            raise UserError(f"tet_lamb is {lamb}: give 0 to 1")
        self.cross_entropy, self.means, self.lamb = cross_entropy, means, lamb

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        steps = logits.shape[0]
        each = self.cross_entropy(logits.flatten(0, 1), labels.repeat(steps, *[1] * (labels.dim() - 1)))
        return (1 - self.lamb) * each + self.lamb * (logits - self.means).square().mean()


@torch.no_grad()
def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """How many samples of a batch are classified right, as a number on the logits' device.

    `logits` are `[B, num_classes]`, or `[T, B, num_classes]`, whose mean over the T time steps decides. `labels` are
    `[B]` class numbers; of `[B, num_classes]` shares of classes, as mixing makes them, the label with the largest
    share is the right one (either of two that are equal).
    """
    predicted = (logits.float().mean(0) if logits.dim() == 3 else logits).argmax(1)
    if labels.dim() == 1:
        return (predicted == labels).sum()
    return (labels.gather(1, predicted[:, None]) == labels.amax(1, keepdim=True)).sum()


def build_loss(settings: Settings) -> nn.Module:
    """The loss that the settings ask for."""
    loss = CrossEntropy(settings.smoothing)
    return TET(loss, settings.tet_means, settings.tet_lamb) if settings.tet else loss
