"""Training augmentations of an image, the test crop, and normalisation.

    transform = train_transform(Augment(hflip=0.5, crop_padding=4), img_size=32, mean=(0.49, 0.48, 0.45))
    pixels = transform(image)                            # PIL image -> uint8 [3, 32, 32]
    Normalise(mean, std)(torch.as_tensor(pixels)[None])  # float32 [1, 3, 32, 32]

Augmentations that mix two images (mixup, cutmix) are in `st_utils/training/optim.py`.
"""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, RandomCrop, Resize

from st_utils.errors import UserError

with warnings.catch_warnings():  # timm 0.5.4 scripts functions on import, which torch now deprecates
    warnings.simplefilter("ignore", FutureWarning)
    from timm.data import create_transform
    from timm.data.auto_augment import AugmentOp, AutoAugment, RandAugment, posterize
    from timm.data.random_erasing import RandomErasing
    from timm.data.transforms import ToNumpy

logger = logging.getLogger(__name__)

POLICY = re.compile(r"rand(-(m|n|mmax)\d+|-mstd\d+(\.\d+)?|-inc1|-w0)*|(original|originalr|v0|v0r)(-mstd\d+(\.\d+)?)?")
INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "random")
ERASE_MODES = ("const", "rand", "pixel")


@dataclass(frozen=True)
class Augment:
    """Settings of the training augmentations of one image; `Augment()` changes nothing.

    Args:
        auto_augment: timm's name of a RandAugment policy ("rand-m9-n1-mstd0.4-inc1") or of an AutoAugment policy
            ("original", "v0r").
        hflip: probability of a left-right flip.
        color_jitter: strength of brightness, contrast and saturation changes, or a strength for each of them (a fourth
            is for hue). Ignored with auto_augment.
        scale, ratio: ranges of the area and the aspect ratio of a random crop, which is resized to the image's side;
            (0.08, 1) and (3/4, 4/3) for ImageNet.
        crop_padding: pixels of black around the image before a random crop; 4 for CIFAR. Not together with scale.
        re_prob: probability of random erasing.
        re_mode: fill of the erased patches: "const", "rand" or "pixel".
        re_count: the largest number of erased patches.
        interpolation: of every resizing: "bicubic", "bilinear", "nearest", or "random" (one of the first two).

    Raises:
        UserError: a value is outside its range.
    """

    auto_augment: str | None = None
    hflip: float = 0.0
    color_jitter: float | tuple[float, ...] = 0.0
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_padding: int = 0
    re_prob: float = 0.0
    re_mode: str = "pixel"
    re_count: int = 1
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        jitter = self.jitter
        checks = {
            "auto_augment": (
                not self.auto_augment or POLICY.fullmatch(self.auto_augment),
                'a policy such as "rand-m9-n1-mstd0.4-inc1", "original" or "v0r"',
            ),
            "hflip": (0 <= self.hflip <= 1, "a probability, 0 to 1"),
            "color_jitter": (len(jitter) in (3, 4) and min(jitter) >= 0, "a strength from 0 up, or 3 or 4"),
            "scale": (self.scale is None or _is_range(self.scale, 1), "two areas, 0 < low <= high <= 1"),
            "ratio": (_is_range(self.ratio, math.inf), "two aspect ratios, 0 < low <= high"),
            "crop_padding": (self.crop_padding >= 0, "a number of pixels, 0 or more"),
            "re_prob": (0 <= self.re_prob <= 1, "a probability, 0 to 1"),
            "re_mode": (self.re_mode in ERASE_MODES, f"one of {', '.join(ERASE_MODES)}"),
            "re_count": (self.re_count >= 1, "a number of patches, 1 or more"),
            "interpolation": (self.interpolation in INTERPOLATIONS, f"one of {', '.join(INTERPOLATIONS)}"),
        }
        for name, (good, wanted) in checks.items():
            if not good:
                raise UserError(f"{name} is {getattr(self, name)!r}: give {wanted}")
        if self.scale and self.crop_padding:
            raise UserError("scale and crop_padding are two ways to crop: give one of them")
        if self.auto_augment and any(jitter):
            logger.warning("color_jitter=%s is ignored: auto_augment changes the colours", self.color_jitter)

    @property
    def jitter(self) -> tuple[float, ...]:
        """The strengths of brightness, contrast, saturation and, if given, hue changes."""
        strength = self.color_jitter
        return tuple(strength) if isinstance(strength, (tuple, list)) else (strength,) * 3

    @property
    def random_pixels(self) -> bool:
        """Whether an image's pixels differ from epoch to epoch, erasing aside, which comes later, on the batch."""
        return bool(self.auto_augment or self.hflip or any(self.jitter) or self.scale or self.crop_padding)


def _is_range(pair: tuple[float, float], top: float) -> bool:
    return len(pair) == 2 and 0 < pair[0] <= pair[1] <= top


def eval_transform(img_size: int, crop_pct: float = 1.0, interpolation: str = "bicubic") -> Callable:
    """Build the test transform, PIL image -> uint8 `[C, img_size, img_size]`.

    The shorter side is resized to img_size / crop_pct, then the centre is cropped.
    """
    mode = _deterministic(interpolation)
    return _to_array(create_transform(img_size, use_prefetcher=True, crop_pct=crop_pct, interpolation=mode))


def train_transform(augment: Augment, img_size: int, mean: tuple[float, ...]) -> Callable:
    """Build the training transform, PIL image -> uint8 `[C, img_size, img_size]`.

    Rotations, shears and translations fill the uncovered pixels with the mean colour, `mean` on the scale 0 to 1.
    """
    transform = create_transform(
        img_size,
        is_training=True,
        use_prefetcher=True,  # in timm this means a uint8 result: batches are normalised and erased later
        scale=augment.scale,
        ratio=augment.ratio,
        hflip=augment.hflip,
        color_jitter=augment.jitter if any(augment.jitter) else None,
        auto_augment=augment.auto_augment,
        interpolation=augment.interpolation,
        mean=mean,
    )
    for op in _policy_ops(transform):
        if op.name.startswith("Posterize"):
            op.aug_fn = _posterize
    if augment.scale is None:  # timm's random crop with resizing cannot be turned off: replace it
        mode = InterpolationMode(_deterministic(augment.interpolation))
        crop = [RandomCrop(img_size, augment.crop_padding)] if augment.crop_padding else []
        transform.transforms[:1] = [Resize(img_size, mode), CenterCrop(img_size), *crop]
    return _to_array(transform)


def _to_array(transform: Compose) -> Compose:
    """Make the last step return an array, as in timm 0.5.4; from timm 1.0 on it returns a tensor."""
    transform.transforms[-1] = ToNumpy()
    return transform


def _deterministic(interpolation: str) -> str:
    """The interpolation of steps that draw no random numbers."""
    return "bicubic" if interpolation == "random" else interpolation


def _policy_ops(transform: Compose) -> Iterator[AugmentOp]:
    """The operations that timm's RandAugment or AutoAugment chooses from."""
    for step in transform.transforms:
        if isinstance(step, RandAugment):
            yield from step.ops
        elif isinstance(step, AutoAugment):
            for sub_policy in step.policy:
                yield from sub_policy


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """Posterize as timm does; 0 bits, which timm's policies sometimes ask for and newer Pillows refuse, give black."""
    return posterize(image, bits) if bits else Image.new(image.mode, image.size)


class Normalise:
    """Normalise images, uint8 `[B, C, H, W]` -> float32 (x / 255 - mean) / std, with a mean and std per channel."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.float().div_(255).sub_(self.mean).div_(self.std)


def random_erasing(augment: Augment) -> RandomErasing | None:
    """Build the transform that erases patches of one normalised image `[C, H, W]` in place; None for re_prob=0.

    Zhong et al. 2017, arXiv:1708.04896.
    """
    if not augment.re_prob:
        return None
    return RandomErasing(augment.re_prob, mode=augment.re_mode, max_count=augment.re_count, device="cpu")
