"""Inputs of a model as images: of sequences and event frames too, in the colours of the picture.

as_pictures(torch.rand(4, 10, 2, 34, 34)).shape  # torch.Size([4, 3, 34, 34]): ON events in red, OFF in blue
draw_samples(figure, images, titles=["3", "8"], colors=["green", "red"])
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def as_pictures(images: Tensor) -> Tensor:
    """Turn frames `[N, T, C, H, W]` into images `[N, 1 or 3, H', W']`; images are returned as they are.

    Event frames are summed over time, ON events in red and OFF events in blue. The rows or pixels of a sequence are put
    together again.
    """
    if images.dim() == 5 and images.shape[-2] == 1:
        rows = images.shape[1] if images.shape[-1] > 1 else math.isqrt(images.shape[1])
        return images.transpose(1, 2).reshape(len(images), images.shape[2], rows, -1)
    pictures = images.sum(1) if images.dim() == 5 else images
    if pictures.shape[1] != 2:
        return pictures
    return torch.stack([pictures[:, 1], torch.zeros_like(pictures[:, 0]), pictures[:, 0]], 1)


def as_grey_or_rgb(images: Tensor) -> Tensor:
    """Inputs `[N, C, H, W]` or frames `[N, T, C, H, W]` as images `[N, H, W, 1 or 3]`, each scaled to 0 to 1."""
    shown = as_pictures(images.float().cpu())
    low, high = shown.amin((1, 2, 3), keepdim=True), shown.amax((1, 2, 3), keepdim=True)
    return ((shown - low) / (high - low).clamp(min=torch.finfo(torch.float32).eps)).permute(0, 2, 3, 1)


def as_films(frames: Tensor) -> Tensor:
    """Frames `[T, N, C, H, W]` as an image per step, `[T, N, H', W', 1 or 3]`; one scale, 0 to 1, for all of its steps.

    Of a sequence, the image of step t has the rows or pixels up to t.
    """
    frames = frames.float().cpu()
    if frames.shape[-2] == 1:
        low = frames.amin((0, 2, 3, 4), keepdim=True)
        known = torch.ones(len(frames), len(frames)).tril().bool()[..., None, None, None, None]
        films = torch.stack([as_pictures(torch.where(now, frames, low).transpose(0, 1)) for now in known])
    else:
        films = torch.stack([as_pictures(step[:, None]) for step in frames])
    low, high = films.amin((0, 2, 3, 4), keepdim=True), films.amax((0, 2, 3, 4), keepdim=True)
    return ((films - low) / (high - low).clamp(min=torch.finfo(torch.float32).eps)).permute(0, 1, 3, 4, 2)


def draw_samples(
    figure: Any, images: Tensor, titles: Sequence[str], colors: Sequence[str], columns: int = 12, rows: int = 2
) -> None:
    """Draw up to rows x columns inputs `[N, ...]` into a (sub)figure, each under its title in its colour."""
    axes = figure.subplots(rows, min(columns, len(images)), squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
        axis.xaxis.set_visible(False)
        axis.yaxis.set_visible(False)
    for axis, image, title, color in zip(axes, as_grey_or_rgb(images), titles, colors, strict=False):
        axis.imshow(image.squeeze(-1).numpy(), cmap="gray")
        axis.set_title(title, fontsize=9, color=color)
