"""Learning from static images what events mean: the losses between two domains, and the slide from one to the other.

He et al. 2024, arXiv:2303.13077; Brain-Cog-Lab/Transfer-for-DVS, main_transfer.py and CKA.py. A model built with
transfer=true gives what the loss takes: `loss = TransferLoss()(*model(images, events), labels, model.coefficient)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from st_utils.errors import UserError


def linear_cka(x: Tensor, y: Tensor, eps: float = 1e-7) -> Tensor:
    """Linear centred kernel alignment of two batches of features: 0 for unrelated, 1 for equal up to a rotation.

    sum(K L) / (|K| |L| + eps) with the doubly centred Gram matrices K of x and L of y (Kornblith et al. 2019,
    arXiv:1905.00414, biased). `[..., B, F]` and `[..., B, F']` -> `[...]`.
    """
    of_x, of_y = (_centred(z @ z.transpose(-1, -2)) for z in (x, y))
    return (of_x * of_y).sum((-2, -1)) / (of_x.norm(dim=(-2, -1)) * of_y.norm(dim=(-2, -1)) + eps)


def _centred(gram: Tensor) -> Tensor:
    gram = gram - gram.mean(-1, keepdim=True)
    return gram - gram.mean(-2, keepdim=True)


class TransferTerms(NamedTuple):
    """The terms of TransferLoss. `total` is what to minimise; the others are parts of it, unweighted."""

    total: Tensor
    source: Tensor
    target: Tensor
    domain: Tensor


class TransferLoss:
    """Both heads' classification losses, and how unlike the two domains' features are.

    total = L(source) + L(target) + domain_weight D, with D the mean over steps of w_t (1 - |CKA_t|).
    L is TET's (Deng et al. 2022, arXiv:2202.11946): (1 - tet_weight) times the mean over steps of the cross-entropy,
    plus tet_weight times the mean squared distance of the logits from `tet_mean`; without `tet` the
    cross-entropy of the mean logits.

    Args:
        tet: as said.
        regularize: w_t = sigmoid(coefficient_t), which are learned with the weights, and the target's terms of step t
            are weighed by 1 - w_t: where domains agree well, events need teach less. Needs `tet`. False: all are 1.
        fixed_weight: this number, not the coefficients, is w_t.
        domain_weight: of D. The authors drop D, whatever is asked for, when they train without sliding: 0 is theirs.
        tet_weight, tet_mean: as said; the mean is the neurons' threshold in the authors' code.
        legacy_regularize: with `fixed_weight` the target's squared distances keep the coefficients' weights, as in the
            authors' code.
    """

    def __init__(
        self,
        tet: bool = True,
        regularize: bool = True,
        fixed_weight: float | None = None,
        domain_weight: float = 0.5,
        tet_weight: float = 1e-3,
        tet_mean: float = 0.5,
        legacy_regularize: bool = False,
    ):
        if regularize and not tet:
            raise UserError("the steps' weights need the loss of each step: tet=true, or regularize=false")
        if fixed_weight is not None and not (regularize and 0 <= fixed_weight <= 1):
            raise UserError(f"fixed_weight, from 0 to 1, needs regularize=true, not {fixed_weight} and {regularize}")
        self.tet, self.regularize, self.fixed_weight, self.domain_weight = tet, regularize, fixed_weight, domain_weight
        self.tet_weight, self.tet_mean, self.legacy_regularize = tet_weight, tet_mean, legacy_regularize

    def __call__(
        self, logits: Tensor, features: Tensor, labels: Tensor, coefficient: Sequence[Tensor] = ()
    ) -> TransferTerms:
        """Of logits `[2, T, B, classes]`, features `[2, T, B, ...]` (source, target), labels `[B]`, T numbers."""
        steps = logits.shape[1]
        if self.regularize and (self.fixed_weight is None or self.legacy_regularize) and len(coefficient) != steps:
            raise UserError(f"{len(coefficient)} coefficients for {steps} steps: give the model's, one a step")
        learned = (
            torch.cat([c.reshape(1) for c in coefficient]).sigmoid() if len(coefficient) else logits.new_ones(steps)
        )
        ones = torch.ones_like(learned)
        weight = learned if self.fixed_weight is None else ones * self.fixed_weight
        shared, crossed, squared = ones, ones, ones
        if self.regularize:
            shared, crossed = weight, 1 - weight
            squared = 1 - learned if self.legacy_regularize else crossed
        domain = (shared * (1 - linear_cka(*features.flatten(3)).abs())).mean()
        source, target = (
            self.classify(logits[0], labels, ones, ones),
            self.classify(logits[1], labels, crossed, squared),
        )
        return TransferTerms(source + target + self.domain_weight * domain, source, target, domain)

    def classify(self, logits: Tensor, labels: Tensor, crossed: Tensor, squared: Tensor) -> Tensor:
        """One head's loss; the steps' cross-entropies and squared distances are weighed as given."""
        if not self.tet:
            return F.cross_entropy(logits.mean(0), labels)
        entropy = torch.stack([F.cross_entropy(now, labels) for now in logits])
        distance = (logits - self.tet_mean).square().mean((1, 2))
        return (1 - self.tet_weight) * (crossed * entropy).mean() + self.tet_weight * (squared * distance).mean()


def replacement_probability(
    epoch: int, batch: int, epochs: int, batches: int, power: float = 3.0, sliding: bool = True
) -> float:
    """How likely an image gives way to the event sample of its place, epochs and batches counted from 0.

    Sliding: the share of training that is done, to the power. Else 0 in the first half of training (up to and with
    epoch epochs / 2), then 1.
    """
    if not sliding:
        return float(epoch > epochs / 2)
    return min(1.0, ((batch + epoch * batches) / (epochs * batches)) ** power)


def replace_samples(
    images: Tensor, events: Tensor, probability: float, generator: torch.Generator | None = None
) -> Tensor:
    """Each image, with that probability, by the event sample of its place: `[B, T, C, H, W]` both -> the same."""
    drawn = torch.rand(len(images), generator=generator, device=images.device) < probability
    return torch.where(drawn.view(-1, 1, 1, 1, 1), events, images)


def value_frames(images: Tensor, step: int, channels: int = 2) -> Tensor:
    """Images `[B, 3, H, W]` as frames of events look: the V of HSV, max(R, G, B), `[B, step, channels, H, W]`."""
    return images.amax(1)[:, None, None].expand(-1, step, channels, -1, -1)
