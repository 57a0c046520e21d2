"""What every contestant computes: a model's weights on batches of images.

    task = Task("spikformer", spec, weights="w.safetensors", images=images, logits=logits, batch=16, threads=2)
    [batch.shape for batch in task.batches()]  # of 32 images: [(16, 3, 32, 32), (16, 3, 32, 32)]

This module imports no torch: the processes of engines that do without it read tasks too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

TIMED_BATCHES, TIMED_IMAGES = 4, 16  # the most that a round times, but for one batch that is larger


@dataclass(frozen=True, eq=False)
class Task:
    """One model at one batch size.

    Attributes:
        name: as the table calls the model: its spec as it was given, or the name of a run's folder.
        spec: builds the model with all its arguments.
        weights: path of its state_dict as safetensors, norms not folded.
        images: float32 `[N, C, H, W]`, or `[N, T, C, H, W]` of frames.
        logits: float64 `[N, classes]`, what plain torch computes in float64.
        batch: images per inference.
        threads: of each engine.
        plugins: files that register parts of the spec.
        onnx: path of the model with folded norms, exported at this batch size; None where no contestant reads it.
        onnx_problem: why the export failed, in one line.
        origin: what a reader must know of the images and the weights.
    """

    name: str
    spec: str
    weights: str
    images: np.ndarray
    logits: np.ndarray
    batch: int
    threads: int
    plugins: tuple[str, ...] = ()
    onnx: str | None = None
    onnx_problem: str = "not exported"
    origin: dict[str, Any] = field(default_factory=dict)

    def batches(self) -> list[np.ndarray]:
        """The images in whole batches; what is left over is not used."""
        count = len(self.images) // self.batch
        return [self.images[i * self.batch : (i + 1) * self.batch] for i in range(count)]

    def timed(self) -> list[np.ndarray]:
        """The first of the batches, which a round times."""
        return self.batches()[: max(1, min(TIMED_BATCHES, TIMED_IMAGES // self.batch))]
