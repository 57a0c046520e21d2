"""What is done to one image: the training augmentations in the field's words, the test crop, normalisation.

Transforms make a PIL image a uint8 array [C, H, W]; `Normalise` makes a batch of them float32. Mixing images
(mixup, cutmix) is the training's business.
"""

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
    """Training augmentations of one image; as it stands, none.

    auto_augment: timm's words for RandAugment ("rand-m9-n1-mstd0.4-inc1") or AutoAugment ("original", "v0r")
    hflip: probability of a left-right flip
    color_jitter: strength of brightness, contrast and saturation changes, or one each; not with auto_augment
    scale, ratio: area and aspect of a random crop that is resized ((0.08, 1) and (3/4, 4/3) for ImageNet)
    crop_padding: pixels of black around the image before a random crop (4 for CIFAR); not with scale
    re_prob, re_mode, re_count: random erasing: probability, fill ("const", "rand", "pixel"), most patches
    interpolation: of every resizing: "bicubic", "bilinear", "nearest", or "random" (one of the first two)

    Raises UserError for a value outside its range.
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
        """Whether an image's pixels differ from epoch to epoch (erasing comes later, on the batch)."""
        return bool(self.auto_augment or self.hflip or any(self.jitter) or self.scale or self.crop_padding)


def _is_range(pair: tuple[float, float], top: float) -> bool:
    return len(pair) == 2 and 0 < pair[0] <= pair[1] <= top


def eval_transform(img_size: int, crop_pct: float = 1.0, interpolation: str = "bicubic") -> Callable:
    """PIL image -> uint8 [C, img_size, img_size]: the short side to img_size / crop_pct, then the centre."""
    mode = _fixed(interpolation)
    return _to_array(create_transform(img_size, use_prefetcher=True, crop_pct=crop_pct, interpolation=mode))


def train_transform(augment: Augment, img_size: int, mean: tuple[float, ...]) -> Callable:
    """PIL image -> uint8 [C, img_size, img_size], augmented; what is shifted in is the mean colour."""
    transform = create_transform(
        img_size,
        is_training=True,
        use_prefetcher=True,  # timm's word for uint8 out: normalising and erasing are done on batches
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
    if augment.scale is None:  # timm would always crop
        mode = InterpolationMode(_fixed(augment.interpolation))
        crop = [RandomCrop(img_size, augment.crop_padding)] if augment.crop_padding else []
        transform.transforms[:1] = [Resize(img_size, mode), CenterCrop(img_size), *crop]
    return _to_array(transform)


def _to_array(transform: Compose) -> Compose:
    """Ends in an array, as with timm 0.5.4: from 1.0 on, the last step makes a tensor."""
    transform.transforms[-1] = ToNumpy()
    return transform


def _fixed(interpolation: str) -> str:
    return "bicubic" if interpolation == "random" else interpolation


def _policy_ops(transform: Compose) -> Iterator[AugmentOp]:
    """Every operation that timm's RandAugment or AutoAugment may choose."""
    for step in transform.transforms:
        if isinstance(step, RandAugment):
            yield from step.ops
        elif isinstance(step, AutoAugment):
            for sub_policy in step.policy:
                yield from sub_policy


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """timm's, but 0 bits give black: timm's policies ask for them now and then, and newer Pillows refuse."""
    return posterize(image, bits) if bits else Image.new(image.mode, image.size)


class Normalise:
    """uint8 [B, C, H, W] -> float32: (0..1 scale - mean) / std."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]):
        self.mean = torch.tensor(mean).view(-1, 1, 1)
        self.std = torch.tensor(std).view(-1, 1, 1)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.float().div_(255).sub_(self.mean).div_(self.std)


def erasing(augment: Augment) -> RandomErasing | None:
    """What erases patches of one normalised image [C, H, W], in place; None where that is not asked for."""
    if not augment.re_prob:
        return None
    return RandomErasing(augment.re_prob, mode=augment.re_mode, max_count=augment.re_count, device="cpu")
