"""Augmentations of event frames [T, C, H, W]: the same change in every frame, named as the recipes name them.

Each draws from the global generators, which the loader seeds for every sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import functional as F

from st_utils.errors import UserError

Augmentation = Callable[[Tensor], Tensor]


def flip(frames: Tensor) -> Tensor:
    """Columns in reverse order."""
    return frames.flip(-1)


def roll(frames: Tensor, rows: int, columns: int) -> Tensor:
    """Moved down and right; what leaves on one side enters on the other."""
    return frames.roll((rows, columns), (-2, -1))


def move(frames: Tensor, rows: int, columns: int) -> Tensor:
    """Moved down and right; what leaves is lost."""
    moved = torch.zeros_like(frames)
    height, width = frames.shape[-2:]
    to, source = [], []
    for shift, size in ((rows, height), (columns, width)):
        to.append(slice(max(shift, 0), max(size + min(shift, 0), 0)))
        source.append(slice(max(-shift, 0), max(size - max(shift, 0), 0)))
    moved[(..., *to)] = frames[(..., *source)]
    return moved


def rotate(frames: Tensor, degrees: float) -> Tensor:
    """Turned counter-clockwise around the centre, nearest neighbours."""
    return F.rotate(frames, degrees)


def shear(frames: Tensor, degrees: float) -> Tensor:
    """The rows above the middle pushed right, those below left, in proportion to their height; nearest neighbours."""
    return F.affine(frames, angle=0.0, translate=[0, 0], scale=1.0, shear=[degrees, 0.0])


def cutout(frames: Tensor, row: int, column: int, side: int) -> Tensor:
    """No events in the square of this side around (row, column), in all frames."""
    cut, half = frames.clone(), side // 2
    cut[..., max(row - half, 0) : row + half, max(column - half, 0) : column + half] = 0
    return cut


def _whole(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, ()).item())


def _real(most: float) -> float:
    return most * (2 * torch.rand(()).item() - 1)


def random_flip(frames: Tensor) -> Tensor:
    return flip(frames) if torch.rand(()).item() < 0.5 else frames


def random_roll(frames: Tensor, most: int) -> Tensor:
    return roll(frames, _whole(-most, most), _whole(-most, most))


def random_cutout(frames: Tensor, side: int) -> Tensor:
    return cutout(frames, _whole(0, frames.shape[-2] - 1), _whole(0, frames.shape[-1] - 1), side)


def random_crop(frames: Tensor) -> Tensor:
    """A twelfth of the side is added around, then cropped (BrainCog)."""
    most = frames.shape[-1] // 12
    return move(frames, _whole(-most, most), _whole(-most, most))


def random_rotation(frames: Tensor) -> Tensor:
    """By up to 15 degrees (BrainCog)."""
    return rotate(frames, _real(15))


def random_shear(frames: Tensor) -> Tensor:
    """By up to 15 degrees (STAtten)."""
    return shear(frames, _real(15))


def nda(frames: Tensor) -> Tensor:
    """Perhaps flipped, then one of: rolled by 5 of 48 pixels, turned by 30 degrees, a third cut out, sheared by 0.3."""
    side, frames = frames.shape[-1], random_flip(frames)
    changes = (
        lambda x: random_roll(x, round(side * 5 / 48)),
        lambda x: rotate(x, _real(30)),
        lambda x: random_cutout(x, side // 3),
        lambda x: shear(x, math.degrees(_real(0.3))),
    )
    return changes[_whole(0, len(changes) - 1)](frames)


def snn_augment_wide(frames: Tensor) -> Tensor:
    """One of: nothing, a shear by up to 0.3, a move by up to 5 columns or rows, a turn by up to 30 degrees."""
    strength = -1 + _whole(0, 30) / 15
    changes = (
        lambda x: x,
        lambda x: shear(x, math.degrees(0.3 * strength)),
        lambda x: move(x, 0, int(5 * strength)),
        lambda x: move(x, int(5 * strength), 0),
        lambda x: rotate(x, 30 * strength),
    )
    return changes[_whole(0, len(changes) - 1)](frames)


def statten(frames: Tensor) -> Tensor:
    """One of: rolled by up to 3 pixels, turned or sheared by up to 15 degrees."""
    changes = (lambda x: random_roll(x, 3), random_rotation, random_shear)
    return changes[_whole(0, len(changes) - 1)](frames)


# name -> what it does, where it is from
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
    """An array of counts [T, C, H, W] -> the tensor, changed by named augmentations one after the other.

    names: "hflip+snn_augment_wide", say; None or "" for none, which keeps the counts' integers.
    """

    def __init__(self, names: str | None = None):
        chosen = [name.strip() for name in names.split("+")] if names else []
        if wrong := [name for name in chosen if name not in AUGMENTATIONS]:
            raise UserError(f"event_augment has {wrong[0]!r}: give names of {', '.join(AUGMENTATIONS)}, joined by +")
        self.names = chosen

    @property
    def random(self) -> bool:
        return bool(self.names)

    def __call__(self, frames) -> Tensor:
        frames = torch.from_numpy(frames)
        if self.names:
            frames = frames.float()
            for name in self.names:
                frames = AUGMENTATIONS[name][0](frames)
        return frames


class FrameNormalise:
    """Frames [B, T, C, H, W] -> float32: (x / scale - mean) / std."""

    def __init__(self, scale: float, mean: tuple[float, ...], std: tuple[float, ...]):
        self.scale, self.mean, self.std = scale, torch.tensor(mean).view(-1, 1, 1), torch.tensor(std).view(-1, 1, 1)
        self.plain = scale == 1 and not self.mean.any() and bool((self.std == 1).all())

    def __call__(self, frames: Tensor) -> Tensor:
        frames = frames.float()
        return frames if self.plain else frames.div_(self.scale).sub_(self.mean).div_(self.std)
