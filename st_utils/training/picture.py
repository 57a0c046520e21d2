"""The picture of a run: its learning curves, held-out images with what the model makes of them, firing rates."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def draw_run(
    path: Path,
    title: str,
    rows: list[dict[str, Any]],
    firing: dict[str, float],
    images: Tensor,
    labels: Tensor,
    logits: Tensor,
    names: tuple[str, ...],
) -> None:
    """Write a PNG.

    Args:
        rows: a run's lines of metrics.
        firing: mean spikes a neuron and step, by layer.
        images: `[N, C, H, W]` (1 or 3 channels) or frames `[N, T, C, H, W]` as the model saw them.
        labels, logits: `[N]` and `[N, classes]`.
        names: of the classes.
    """
    import matplotlib  # slow to import, and used here only

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(12, 6.5), layout="constrained")
    figure.suptitle(title, fontsize=12)
    above, below = figure.subfigures(2, 1, height_ratios=(1.5, 1))
    loss, accuracy, rates = above.subplots(1, 3)
    epochs = [row["epoch"] for row in rows]
    loss.plot(epochs, [row["train_loss"] for row in rows], label="training")
    loss.plot(epochs, [row["test_loss"] for row in rows], label="held out")
    loss.set(xlabel="epoch", title="loss")
    loss.legend(frameon=False)
    accuracy.plot(epochs, [row["top1"] for row in rows], color="tab:green")
    accuracy.set(xlabel="epoch", title=f"held-out accuracy: {rows[-1]['top1']:.2f} %")
    rates.barh(range(len(firing)), list(firing.values()), color="tab:orange")
    rates.set(title="spikes a neuron and step, by layer", xlabel="firing rate", yticks=[])
    rates.locator_params(axis="x", nbins=5)
    rates.invert_yaxis()
    _draw_images(below, images, labels, logits, names)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_images(figure: Any, images: Tensor, labels: Tensor, logits: Tensor, names: tuple[str, ...]) -> None:
    columns = min(12, len(images))
    axes = figure.subplots(2, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    shown = as_pictures(images.float().cpu())
    low, high = shown.amin((1, 2, 3), keepdim=True), shown.amax((1, 2, 3), keepdim=True)
    shown = ((shown - low) / (high - low).clamp(min=torch.finfo(torch.float32).eps)).permute(0, 2, 3, 1)
    for axis, image, label, predicted in zip(axes, shown, labels.tolist(), logits.argmax(1).tolist(), strict=False):
        axis.imshow(image.squeeze(-1).numpy(), cmap="gray")
        axis.set_title(names[predicted], fontsize=9, color="tab:green" if predicted == label else "tab:red")


def as_pictures(images: Tensor) -> Tensor:
    """Images as they are; frames `[N, T, C, H, W]` as `[N, 1 or 3, H', W']`: events added up, rows joined."""
    if images.dim() == 5 and images.shape[-2] == 1:
        rows = images.shape[1] if images.shape[-1] > 1 else math.isqrt(images.shape[1])
        return images.transpose(1, 2).reshape(len(images), images.shape[2], rows, -1)
    pictures = images.sum(1) if images.dim() == 5 else images
    if pictures.shape[1] != 2:
        return pictures
    return torch.stack([pictures[:, 1], torch.zeros_like(pictures[:, 0]), pictures[:, 0]], 1)  # ON red, OFF blue
