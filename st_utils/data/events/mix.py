"""Mixing of a batch's samples: timm's mixup and cutmix for frames as for images, and EventMix."""

from __future__ import annotations

import numpy as np
import torch
from timm.data.mixup import Mixup
from torch import Tensor

from st_utils.errors import UserError


class BatchMix:
    """(inputs, labels) -> (mixed inputs, soft targets); sample i is mixed with sample B - 1 - i, as timm does.

    mixup: timm's, for images [B, C, H, W] and frames [B, T, C, H, W], whose box is the same in every frame
    event_mix: alpha of EventMix, which then is chosen instead of timm's with probability `share`; 0 for none
    prob: of mixing a batch by EventMix
    """

    def __init__(
        self, mixup: Mixup | None, event_mix: float, prob: float, share: float, smoothing: float, classes: int
    ):
        if event_mix < 0:
            raise UserError(f"event_mix is {event_mix}: give the alpha of a Beta distribution, 0 for none")
        self.mixup, self.event_mix, self.prob = mixup, event_mix, prob
        self.share, self.smoothing, self.classes = share if mixup else 1.0, smoothing, classes

    def __call__(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if self.event_mix and (self.mixup is None or np.random.rand() < self.share):
            return self._event_mix(inputs, labels)
        shape = inputs.shape
        mixed, targets = self.mixup(inputs.flatten(1, 2) if inputs.dim() == 5 else inputs, labels)
        return mixed.view(shape), targets

    def _event_mix(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        if inputs.dim() != 5:
            raise UserError("event_mix is for event frames: leave it out, or use mixup or cutmix")
        if np.random.rand() >= self.prob:
            return inputs, smoothed_one_hot(labels, self.classes, self.smoothing)
        kept = np.random.beta(self.event_mix, self.event_mix)
        mask = torch.from_numpy(gaussian_mask((inputs.shape[1], *inputs.shape[-2:]), 1 - kept)).to(inputs.device)
        return event_mix(inputs, labels, mask, self.classes, self.smoothing)


def event_mix(
    inputs: Tensor, labels: Tensor, mask: Tensor, classes: int, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Where `mask` [T, H, W] is true, the partner's events; the targets in proportion to the shares of events.

    Shen et al., EventMix, arXiv:2205.12054: with the share a of the sample's events that are kept and the share b of
    its partner's that are taken, the target is (a y + b y') / (a + b); by area where neither has any.
    """
    partner, mask = inputs.flip(0), mask[:, None]
    mixed = torch.where(mask, partner, inputs)

    def share(frames: Tensor, inside: Tensor) -> Tensor:
        return (frames * inside).flatten(1).sum(1) / frames.flatten(1).sum(1).clamp_min(1e-12)

    own, other = share(inputs, ~mask), share(partner, mask)
    area = 1 - mask.float().mean()
    weight = torch.where(own + other > 0, own / (own + other).clamp_min(1e-12), area)[:, None]
    hot = smoothed_one_hot(labels, classes, smoothing)
    return mixed, weight * hot + (1 - weight) * hot.flip(0)


def smoothed_one_hot(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """[B] -> [B, classes] float32, on the labels' device: 1 - s + s / classes for the label, s / classes elsewhere."""
    off = smoothing / classes
    targets = torch.full((len(labels), classes), off, device=labels.device)
    return targets.scatter_(1, labels.long().view(-1, 1), 1 - smoothing + off)


def gaussian_mask(shape: tuple[int, int, int], share: float) -> np.ndarray:
    """The `share` of the points (t, row, column) with the highest density of 2 to 4 random Gaussians, as bool."""
    density = np.zeros(shape)
    axes = np.ogrid[tuple(slice(size) for size in shape)]
    for _ in range(np.random.randint(2, 5)):
        centre = [np.random.randint(size) for size in shape]
        width = [max(np.random.rand(), 0.1) * size / 2 for size in shape]
        exponent = sum(((axis - c) / w) ** 2 for axis, c, w in zip(axes, centre, width, strict=True))
        density += np.random.rand() * np.exp(-exponent / 2)
    order = np.argsort(density, axis=None, kind="stable")
    mask = np.zeros(density.size, dtype=bool)
    mask[order[density.size - round(share * density.size) :]] = True
    return mask.reshape(shape)
