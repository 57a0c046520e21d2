"""Transfer learning from static images to events: the loss of two domains, and the gradual change between them.

    model = create_model("transfer_vgg(transfer=true)")
    terms = TransferLoss()(*model(images, events), labels, model.coefficient)
    terms.total.backward()

He et al. 2024, arXiv:2303.13077; Brain-Cog-Lab/Transfer-for-DVS, main_transfer.py and CKA.py. Images are the source
domain, events the target domain; at first the source's batches are images, at the end of training they are events.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from st_utils.errors import UserError


def linear_cka(x: Tensor, y: Tensor, eps: float = 1e-7) -> Tensor:
    """Linear centred kernel alignment of features `[..., B, F]` and `[..., B, F']` -> `[...]`.

    CKA = sum(K * L) / (|K| |L| + eps) with the doubly centred Gram matrices K of x and L of y (Kornblith et al. 2019,
    arXiv:1905.00414, the biased form). It is 0 for unrelated features and 1 for features equal up to a rotation.
    """
    gram_x, gram_y = (_centred(z @ z.transpose(-1, -2)) for z in (x, y))
    return (gram_x * gram_y).sum((-2, -1)) / (gram_x.norm(dim=(-2, -1)) * gram_y.norm(dim=(-2, -1)) + eps)


def _centred(gram: Tensor) -> Tensor:
    """The matrix `[..., B, B]` with its rows' and its columns' means taken away."""
    gram = gram - gram.mean(-1, keepdim=True)
    return gram - gram.mean(-2, keepdim=True)


class TransferTerms(NamedTuple):
    """The loss `total`, which is to be minimised, and its terms `source`, `target` and `domain`, unweighted."""

    total: Tensor
    source: Tensor
    target: Tensor
    domain: Tensor


class TransferLoss:
    """The classification losses of both domains, plus the distance between their features.

    total = L(source) + L(target) + domain_weight D,   D = 1/T sum_t w_t (1 - |CKA_t|)
    L = (1 - tet_weight) 1/T sum_t u_t CE_t + tet_weight 1/T sum_t u_t MSE(logits_t, tet_mean)

    u_t is 1 for the source and 1 - w_t for the target. L is TET's loss (Deng et al. 2022, arXiv:2202.11946).

    Args:
        tet: False: L is the cross-entropy of the logits' mean over time.
        regularize: w_t = sigmoid(coefficient_t), learned with the weights: in a step in which the domains agree, the
            target's labels count less. Needs `tet`. False: all w_t and u_t are 1.
        fixed_weight: w_t, 0 to 1, instead of the learned coefficients. Needs `regularize`.
        domain_weight: the weight of D. The authors' code has 0 for training without sliding.
        tet_weight, tet_mean: as in L; in the authors' code the mean is the neurons' threshold.
        legacy_regularize: with `fixed_weight`, the target's MSE keeps u_t = 1 - sigmoid(coefficient_t), as in the
            authors' code.
        smoothing: label smoothing of the cross-entropies.

    Raises:
        UserError: `regularize` without `tet`, `fixed_weight` without `regularize`, or no coefficient for some step.
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
        smoothing: float = 0.0,
    ):
        if regularize and not tet:
            raise UserError("the steps' weights need the loss of each step: tet=true, or regularize=false")
        if fixed_weight is not None and not (regularize and 0 <= fixed_weight <= 1):
            raise UserError(f"fixed_weight, from 0 to 1, needs regularize=true, not {fixed_weight} and {regularize}")
        self.tet, self.regularize, self.fixed_weight, self.domain_weight = tet, regularize, fixed_weight, domain_weight
        self.tet_weight, self.tet_mean, self.legacy_regularize = tet_weight, tet_mean, legacy_regularize
        self.cross_entropy = partial(F.cross_entropy, label_smoothing=smoothing)

    def __call__(
        self, logits: Tensor, features: Tensor, labels: Tensor, coefficient: Sequence[Tensor] = ()
    ) -> TransferTerms:
        """The loss of logits `[2, T, B, classes]`, features `[2, T, B, ...]` (source, target) and labels `[B]`."""
        steps = logits.shape[1]
        if self.regularize and (self.fixed_weight is None or self.legacy_regularize) and len(coefficient) != steps:
            raise UserError(f"{len(coefficient)} coefficients for {steps} steps: give the model's, one per step")
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
        """L of one domain, logits `[T, B, classes]`; `crossed` and `squared` `[T]` are u_t of CE and of MSE."""
        if not self.tet:
            return self.cross_entropy(logits.mean(0), labels)
        entropy = torch.stack([self.cross_entropy(now, labels) for now in logits])
        distance = (logits - self.tet_mean).square().mean((1, 2))
        return (1 - self.tet_weight) * (crossed * entropy).mean() + self.tet_weight * (squared * distance).mean()


def replacement_probability(
    epoch: int, batch: int, epochs: int, batches: int, power: float = 3.0, sliding: bool = True
) -> float:
    """The probability that an image is replaced by an event sample; epochs and batches count from 0.

    With `sliding`: (share of training that is done) ** power. Without: 0 up to epoch epochs / 2, then 1.
    """
    if not sliding:
        return float(epoch > epochs / 2)
    return min(1.0, ((batch + epoch * batches) / (epochs * batches)) ** power)


def replace_samples(
    images: Tensor, events: Tensor, probability: float, generator: torch.Generator | None = None
) -> Tensor:
    """Replace each image by the event sample at its index with this probability; all are `[B, T, C, H, W]`."""
    drawn = torch.rand(len(images), generator=generator, device=images.device) < probability
    return torch.where(drawn.view(-1, 1, 1, 1, 1), events, images)


def value_frames(images: Tensor, step: int, channels: int = 2) -> Tensor:
    """Turn images `[B, 3, H, W]` into frames `[B, step, channels, H, W]` of V = max(R, G, B), the value of HSV."""
    return images.amax(1)[:, None, None].expand(-1, step, channels, -1, -1)
