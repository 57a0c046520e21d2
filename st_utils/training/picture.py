"""Draw the picture of a run: learning curves, firing rates, and test images with the classes that the model gives.

draw_run(Path("run.png"), title="spikformer", rows=rows, firing=rates, images=images, labels=labels, logits=logits,
         names=data.class_names)
"""

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
    """Draw a run's picture and write it as a PNG.

    Args:
        rows: the run's metrics, one dict per epoch.
        firing: the firing rate of each layer, in spikes per neuron per step.
        images: the model's inputs, `[N, C, H, W]` with 1 or 3 channels, or frames `[N, T, C, H, W]`.
        labels: class numbers `[N]`.
        logits: `[N, classes]`.
        names: the names of the classes.
    """
    from matplotlib.figure import Figure  # slow to import, and used here only; pyplot's backend stays the caller's

    figure = Figure(figsize=(12, 6.5), layout="constrained")
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
    rates.set(title="spikes per neuron per step, by layer", xlabel="firing rate", yticks=[])
    rates.locator_params(axis="x", nbins=5)
    rates.invert_yaxis()
    _draw_images(below, images, labels, logits, names)
    figure.savefig(path, dpi=110)


def _draw_images(figure: Any, images: Tensor, labels: Tensor, logits: Tensor, names: tuple[str, ...]) -> None:
    """Draw up to 24 images, each with the model's class: green where it is right, red where it is wrong."""
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
