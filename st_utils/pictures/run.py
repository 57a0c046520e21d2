"""Draw the picture of a run: learning curves, firing rates, and test images with the classes that the model gives.

draw_run(Path("run.png"), title="spikformer", rows=rows, firing=rates, images=images, labels=labels, logits=logits,
         names=data.class_names)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from st_utils.pictures.samples import draw_samples
from st_utils.pictures.style import Theme, dress, new_figure, save


def draw_run(
    path: Path,
    title: str,
    rows: list[dict[str, Any]],
    firing: dict[str, float],
    images: Tensor,
    labels: Tensor,
    logits: Tensor,
    names: tuple[str, ...],
    theme: Theme = "light",
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
    figure = new_figure(12, 6.5, title, theme)
    style = figure.style
    above, below = figure.subfigures(2, 1, height_ratios=(1.5, 1))
    loss, accuracy, rates = above.subplots(1, 3)
    epochs = [row["epoch"] for row in rows]
    for axes, training, test in ((loss, "train_loss", "test_loss"), (accuracy, "train_top1", "top1")):
        for column, label, color in zip((training, test), ("training", "held out"), style.series, strict=False):
            if any(row.get(column) is not None for row in rows):
                axes.plot(epochs, [row.get(column) for row in rows], color=color, label=label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
    loss.set(xlabel="epoch", title="loss")
    accuracy.set(xlabel="epoch", ylabel="%", title=f"held-out accuracy: {rows[-1]['top1']:.2f} %")
    rates.barh(range(len(firing)), list(firing.values()), color=style.series[1])
    rates.set(title="spikes per neuron per step, by layer", xlabel="firing rate", yticks=[])
    rates.locator_params(axis="x", nbins=5)
    rates.invert_yaxis()
    for axes in (loss, accuracy, rates):
        dress(axes, style, grid="x" if axes is rates else "y")
    predicted = logits.argmax(1).tolist()
    right = [guess == label for guess, label in zip(predicted, labels.tolist(), strict=True)]
    colors = [style.right if good else style.wrong for good in right]
    draw_samples(below, images, [names[guess] for guess in predicted], colors)
    save(figure, path)
