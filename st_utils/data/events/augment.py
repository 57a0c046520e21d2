"""Augmentations of event frames `[T, C, H, W]`: one random change, the same in all frames of a sample.

    FrameTransform("hflip+nda")(frames)      # int counts [4, 2, 48, 48] -> float32 [4, 2, 48, 48]

The names are those of the recipes, see AUGMENTATIONS. Random numbers come from torch's global generator, which the
loader seeds for every sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import functional as F

from st_utils.errors import UserError

Augmentation = Callable[[Tensor], Tensor]


def flip(frames: Tensor) -> Tensor:
    """Reverse the order of the columns."""
    return frames.flip(-1)


def roll(frames: Tensor, rows: int, columns: int) -> Tensor:
    """Shift down and right; pixels that leave on one side enter on the other."""
    return frames.roll((rows, columns), (-2, -1))


def translate(frames: Tensor, rows: int, columns: int) -> Tensor:
    """Shift down and right; pixels that leave are lost, zeros enter."""
    shifted = torch.zeros_like(frames)
    height, width = frames.shape[-2:]
    to, source = [], []
    for shift, size in ((rows, height), (columns, width)):
        to.append(slice(max(shift, 0), max(size + min(shift, 0), 0)))
        source.append(slice(max(-shift, 0), max(size - max(shift, 0), 0)))
    shifted[(..., *to)] = frames[(..., *source)]
    return shifted


def rotate(frames: Tensor, degrees: float) -> Tensor:
    """Rotate counter-clockwise around the centre, with nearest-neighbour interpolation."""
    return F.rotate(frames, degrees)


def shear(frames: Tensor, degrees: float) -> Tensor:
    """Shift a row n rows above the middle right by n tan(degrees) pixels, one below it left; nearest neighbours."""
    return F.affine(frames, angle=0.0, translate=[0, 0], scale=1.0, shear=[degrees, 0.0])


def cutout(frames: Tensor, row: int, column: int, side: int) -> Tensor:
    """Set to 0 the square of this side around (row, column)."""
    cut, half = frames.clone(), side // 2
    cut[..., max(row - half, 0) : row + half, max(column - half, 0) : column + half] = 0
    return cut


def _random_int(low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, ()).item())


def _random_float(limit: float) -> float:
    """A number from -limit to limit."""
    return limit * (2 * torch.rand(()).item() - 1)


def random_flip(frames: Tensor) -> Tensor:
    """Flip left to right with probability 1/2."""
    return flip(frames) if torch.rand(()).item() < 0.5 else frames


def random_roll(frames: Tensor, limit: int) -> Tensor:
    """Roll by up to `limit` rows and columns."""
    return roll(frames, _random_int(-limit, limit), _random_int(-limit, limit))


def random_cutout(frames: Tensor, side: int) -> Tensor:
    """Set to 0 a square of this side around a random pixel."""
    return cutout(frames, _random_int(0, frames.shape[-2] - 1), _random_int(0, frames.shape[-1] - 1), side)


def random_crop(frames: Tensor) -> Tensor:
    """Pad by a twelfth of the side and crop, that is, translate by up to a twelfth of the side (BrainCog)."""
    limit = frames.shape[-1] // 12
    return translate(frames, _random_int(-limit, limit), _random_int(-limit, limit))


def random_rotation(frames: Tensor) -> Tensor:
    """Rotate by up to 15 degrees (BrainCog)."""
    return rotate(frames, _random_float(15))


def random_shear(frames: Tensor) -> Tensor:
    """Shear by up to 15 degrees (STAtten)."""
    return shear(frames, _random_float(15))


def nda(frames: Tensor) -> Tensor:
    """Flip with probability 1/2, then apply one of roll, rotation, cutout and shear.

    Roll: up to 5 / 48 of the side; rotation: up to 30 degrees; cutout: a third of the side; shear: up to 0.3 radians.
    Li et al., Neuromorphic Data Augmentation, ECCV 2022, arXiv:2203.06145.
    """
    side, frames = frames.shape[-1], random_flip(frames)
    changes = (
        lambda x: random_roll(x, round(side * 5 / 48)),
        lambda x: rotate(x, _random_float(30)),
        lambda x: random_cutout(x, side // 3),
        lambda x: shear(x, math.degrees(_random_float(0.3))),
    )
    return changes[_random_int(0, len(changes) - 1)](frames)


def snn_augment_wide(frames: Tensor) -> Tensor:
    """Apply one of: nothing, a shear by up to 0.3 radians, a shift by up to 5 columns or rows, a turn by 30 degrees."""
    strength = -1 + _random_int(0, 30) / 15
    changes = (
        lambda x: x,
        lambda x: shear(x, math.degrees(0.3 * strength)),
        lambda x: translate(x, 0, int(5 * strength)),
        lambda x: translate(x, int(5 * strength), 0),
        lambda x: rotate(x, 30 * strength),
    )
    return changes[_random_int(0, len(changes) - 1)](frames)


def statten(frames: Tensor) -> Tensor:
    """Apply one of: a roll by up to 3 pixels, a rotation or a shear by up to 15 degrees."""
    changes = (lambda x: random_roll(x, 3), random_rotation, random_shear)
    return changes[_random_int(0, len(changes) - 1)](frames)


# name -> (function, source)
AUGMENTATIONS: dict[str, tuple[Augmentation, str]] = {
    "hflip": (random_flip, "Spikformer, QKFormer: a left-right flip of half of the samples"),
    "roll": (lambda x: random_roll(x, 5), "TET: rolled by up to 5 pixels"),
    "crop": (random_crop, "BrainCog"),
    "rotate": (random_rotation, "BrainCog"),
    "shear": (random_shear, "STAtten"),
    "cutout": (lambda x: random_cutout(x, 16), "SDT's dvs_aug: a square of 16 pixels"),
    "nda": (nda, "Li et al., Neuromorphic Data Augmentation, ECCV 2022, arXiv:2203.06145"),
    "snn_augment_wide": (snn_augment_wide, "Spikformer, SDT, QKFormer: SNNAugmentWide"),
    "braincog": (lambda x: random_rotation(random_flip(random_crop(x))), "BrainCog's crop, flip and rotation"),
    "statten": (statten, "STAtten on N-Caltech101"),
}


class FrameTransform:
    """Apply named augmentations one after the other: array `[T, C, H, W]` -> float32 tensor of the same shape.

    `names` are joined by +, such as "hflip+snn_augment_wide". Without names (None or "") the tensor keeps the array's
    dtype. Raises UserError for a name that is not in AUGMENTATIONS.
    """

    def __init__(self, names: str | None = None):
        chosen = [name.strip() for name in names.split("+")] if names else []
        if wrong := [name for name in chosen if name not in AUGMENTATIONS]:
            raise UserError(f"event_augment has {wrong[0]!r}: give names of {', '.join(AUGMENTATIONS)}, joined by +")
        self.names = chosen

    @property
    def random(self) -> bool:
        """Whether the transform draws random numbers."""
        return bool(self.names)

    def __call__(self, frames: np.ndarray) -> Tensor:
        frames = torch.from_numpy(frames)
        if self.names:
            frames = frames.float()
            for name in self.names:
                frames = AUGMENTATIONS[name][0](frames)
        return frames


class FrameNormalise:
    """Normalise frames `[B, T, C, H, W]` -> float32 (x / scale - mean) / std, with a mean and std per channel."""

    def __init__(self, scale: float, mean: tuple[float, ...], std: tuple[float, ...]):
        self.scale, self.mean, self.std = scale, torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)
        self.changes_nothing = scale == 1 and not self.mean.any() and bool((self.std == 1).all())

    def __call__(self, frames: Tensor) -> Tensor:
        frames = frames.float()
        return frames if self.changes_nothing else frames.div_(self.scale).sub_(self.mean).div_(self.std)
