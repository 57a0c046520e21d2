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

GAP, ROOM = 0.12, 0.32  # beside an image, and above it for its title; in heights of an image


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
    """Draw up to rows x columns inputs `[N, ...]` into a (sub)figure, each under its title in its colour.

    All in one axes: 24 axes, and the layout of their ticks, took 0.7 s, half the time of the shortest runs.
    """
    shown = as_grey_or_rgb(images[: rows * columns])
    columns, shape = min(columns, len(shown)), shown.shape[2] / shown.shape[1]  # an image is `shape` wide and 1 high
    axes = figure.subplots()
    axes.axis("off")
    for index, (image, title, color) in enumerate(zip(shown, titles, colors, strict=False)):
        left, top = index % columns * (shape + GAP), -(index // columns) * (1 + ROOM)
        axes.imshow(image.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1, extent=(left, left + shape, top - 1, top))
        axes.text(left + shape / 2, top + 0.04, title, fontsize=9, color=color, ha="center", va="bottom")
    axes.set(xlim=(0, columns * (shape + GAP) - GAP), ylim=(-(rows - 1) * (1 + ROOM) - 1, ROOM))
