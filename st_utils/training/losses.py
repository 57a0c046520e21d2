"""Losses of logits against labels, and the number of right answers.

    loss = build_loss(settings)              # settings.tet: TET of [T, B, num_classes] logits; else cross-entropy
    loss(torch.randn(8, 10), torch.randint(10, (8,)))

Labels are class numbers `[B]`, or, of mixed images, the classes' shares `[B, num_classes]`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from st_utils.errors import UserError
from st_utils.training.settings import Settings


class CrossEntropy(nn.Module):
    """Cross-entropy with label smoothing of logits `[B, num_classes]`: the batch's mean of -sum_k q_k log p_k.

    p = softmax(logits). q_k = (1 - smoothing) [k is the label] + smoothing / num_classes (Szegedy et al. 2016,
    arXiv:1512.00567). Labels that are shares of classes are q themselves. Raises UserError for smoothing outside
    0 <= smoothing < 1.
    """

    def __init__(self, smoothing: float = 0.0):
        super().__init__()
        if not 0 <= smoothing < 1:
            raise UserError(f"smoothing is {smoothing}: give 0 or more, below 1")
        self.smoothing = smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits `[B, num_classes]`, labels -> the loss, a tensor without axes."""
        return F.cross_entropy(logits, labels, label_smoothing=0.0 if labels.dim() == 2 else self.smoothing)


class TET(nn.Module):
    """Temporal efficient training (Deng et al. 2022, arXiv:2202.11946) of logits `[T, B, num_classes]`.

    (1 - lamb) 1/T sum_t CE(logits_t, labels) + lamb MSE(logits, means). MSE is the mean over steps, samples and
    classes; it pulls the logits of every step towards the constant `means`. Raises UserError for lamb outside 0 to 1.
    """

    def __init__(self, cross_entropy: nn.Module, means: float = 1.0, lamb: float = 0.001):
        super().__init__()
        if not 0 <= lamb <= 1:
            raise UserError(f"tet_lamb is {lamb}: give 0 to 1")
        self.cross_entropy, self.means, self.lamb = cross_entropy, means, lamb

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits `[T, B, num_classes]`, labels -> the loss, a tensor without axes."""
        steps = logits.shape[0]
        entropy = self.cross_entropy(logits.flatten(0, 1), labels.repeat(steps, *[1] * (labels.dim() - 1)))
        return (1 - self.lamb) * entropy + self.lamb * (logits - self.means).square().mean()


@torch.no_grad()
def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Count the samples of a batch that are classified right; a tensor without axes on the logits' device.

    The answer is the largest logit of `[B, num_classes]`, or of the mean over time of `[T, B, num_classes]`. Labels are
    class numbers `[B]`. Of the shares `[B, num_classes]` of mixed images the largest is right; if two are equal, both.
    """
    predicted = (logits.float().mean(0) if logits.dim() == 3 else logits).argmax(1)
    if labels.dim() == 1:
        return (predicted == labels).sum()
    return (labels.gather(1, predicted[:, None]) == labels.amax(1, keepdim=True)).sum()


def build_loss(settings: Settings) -> nn.Module:
    """Build the loss that the settings choose: `CrossEntropy`, or with `tet`, `TET` around it."""
    loss = CrossEntropy(settings.smoothing)
    return TET(loss, settings.tet_means, settings.tet_lamb) if settings.tet else loss
