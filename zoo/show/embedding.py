"""The test images' features in two dimensions, coloured by class (PNG).

    python main.py --show embedding --resume runs/NAME
    zoo.show("embedding", "runs/NAME", images=["three.png"])  # the file's place among the test images, as a star

The title has the accuracy of the five nearest neighbours, in all dimensions of the features and in the picture's two.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from st_utils.analysis.embedding import NEIGHBOURS, mean_features, method_for, neighbour_accuracy, project
from st_utils.data.loader import evenly_spaced
from st_utils.pictures.embedding import draw_embedding
from zoo.show.subject import Subject

IMAGES = 1000  # test images at most


def draw(subject: Subject) -> list[Path]:
    """Draw the picture; the first process does."""
    if subject.trainer.rank > 0:
        return []
    features, labels = _features(subject)
    extra, names = np.empty((0, features.shape[1])), []
    if subject.files:
        shown = subject.inputs(len(subject.files))
        extra, names = mean_features(subject.model, shown.inputs).cpu().numpy(), shown.names
    together = np.concatenate([features, extra])
    places = project(together)
    different = len(np.unique(features, axis=0))
    images = f"{len(features):,} test images" + (f" ({different:,} different)" if different < len(features) else "")
    everywhere, here = (neighbour_accuracy(x, labels) for x in (features, places[: len(features)]))
    title = (
        f"{subject.title}\n{method_for(together)} of the features of {images}; accuracy of the {NEIGHBOURS} nearest\n"
        f"neighbours: {_percent(everywhere)} in all {features.shape[1]} dimensions, {_percent(here)} in these two"
    )
    path = draw_embedding(
        subject.path("embedding.png"),
        title,
        places[: len(features)],
        labels,
        subject.data.class_names,
        extra=places[len(features) :],
        extra_names=names,
        theme=subject.theme,
    )
    return [path]


def _features(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """The features `[N, D]` and labels `[N]` of up to 1,000 test images at even distances, a batch at a time."""
    trainer = subject.trainer
    chosen = evenly_spaced(IMAGES, len(trainer.test_loader.source))
    size = trainer.settings.batch_size
    features, labels = [], []
    for start in range(0, len(chosen), size):
        inputs, classes = trainer.test_loader.samples(chosen[start : start + size])
        with trainer.autocast():
            features.append(mean_features(subject.model, trainer.to_device(inputs)).cpu())
        labels.append(classes)
    return torch.cat(features).numpy(), torch.cat(labels).numpy()


def _percent(value: float | None) -> str:
    return "unknown (too few images)" if value is None else f"{value:.1f} %"
