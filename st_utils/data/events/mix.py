"""Mix the samples of a batch: timm's mixup and cutmix, for images and for event frames, and EventMix.

mix = BatchMix(mixup=None, event_mix=1.0, prob=0.5, share=1.0, smoothing=0.1, classes=10)
frames, targets = mix(frames, labels)    # [B, T, C, H, W], [B] -> the same shape, soft targets [B, 10]
"""

from __future__ import annotations

import numpy as np
import torch
from timm.data.mixup import Mixup
from torch import Tensor

from st_utils.errors import UserError


class BatchMix:
    """Maps (inputs, labels) to (mixed inputs, soft targets `[B, classes]`); sample i is mixed with sample B - 1 - i.

    Args:
        mixup: timm's mixup and cutmix, for images `[B, C, H, W]` and frames `[B, T, C, H, W]`; cutmix's box is the same
            in all frames of a sample.
        event_mix: alpha of EventMix's Beta distribution; 0: no EventMix.
        prob: probability that EventMix mixes a batch which it gets.
        share: probability that a batch goes to EventMix rather than to `mixup`, where there are both.
        smoothing: label smoothing of batches that go to EventMix.

    Raises:
        UserError: event_mix is negative, or its inputs are no frames.
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
        own_share = np.random.beta(self.event_mix, self.event_mix)
        mask = torch.from_numpy(gaussian_mask((inputs.shape[1], *inputs.shape[-2:]), 1 - own_share)).to(inputs.device)
        return event_mix(inputs, labels, mask, self.classes, self.smoothing)


def event_mix(
    inputs: Tensor, labels: Tensor, mask: Tensor, classes: int, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """EventMix (Shen et al. 2022, arXiv:2205.12054): take the partner's events where `mask` `[T, H, W]` is true.

    The target is (a y + b y') / (a + b): a is the share of the sample's events that remain, b the share of its
    partner's events that are taken. Where a + b = 0, the target is y and y' in proportion to the areas of the mask.
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
    """Labels `[B]` -> float32 `[B, classes]`: 1 - s + s / classes for the label, s / classes for every other class."""
    off = smoothing / classes
    targets = torch.full((len(labels), classes), off, device=labels.device)
    return targets.scatter_(1, labels.long().view(-1, 1), 1 - smoothing + off)


def gaussian_mask(shape: tuple[int, int, int], share: float) -> np.ndarray:
    """A random mask, bool `[T, H, W]`: true at the `share` of places where 2 to 4 random Gaussians sum up highest."""
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
