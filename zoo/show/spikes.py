"""Spikes: a raster of every layer for one input (PNG), and the outputs as they grow over the time steps (GIF).

    python main.py --show spikes --resume runs/NAME
    zoo.show("spikes", "runs/NAME", images=["three.png"])  # [.../spikes_three.png, .../spikes.gif]

Without files the raster is of the first test image, and the animation of one test image of each class, ten at most.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from torch import Tensor

from st_utils.analysis.spikes import Output, record_output, record_spikes
from st_utils.errors import UserError
from st_utils.pictures.spikes import Panel, draw_output, draw_raster
from zoo.show.subject import Inputs, Subject

logger = logging.getLogger("zoo")
INPUTS = 10  # of the animation, at most


def draw(subject: Subject) -> list[Path]:
    """Draw the rasters and the animation; the first process does."""
    if subject.trainer.rank > 0:
        return []
    with subject.trainer.autocast():
        return _draw(subject)


def _draw(subject: Subject) -> list[Path]:
    if len(subject.files) > INPUTS:
        raise UserError(f"--show spikes draws up to {INPUTS} inputs, and --images names {len(subject.files)}")
    shown = subject.inputs(INPUTS, each_class=True)
    stems = [Path(name).stem for name in shown.names]
    paths = []
    for number, stem in enumerate(stems if subject.files else stems[:1]):
        stem = f"{stem}-{number + 1}" if stems.count(stem) > 1 else stem
        name = f"spikes_{stem}.png" if subject.files else "spikes.png"
        paths.append(_raster(subject, subject.path(name), shown.inputs[number][None], shown.names[number]))
    try:
        output = record_output(subject.model, shown.inputs)
    except UserError as error:
        logger.warning("%s; without it there is no animation", error)
        return paths
    return [*paths, _animation(subject, shown, output)]


def _raster(subject: Subject, path: Path, x: Tensor, name: str) -> Path:
    """The raster of one input."""
    layers, words, output = record_spikes(subject.model, x), f"input: {name}", None
    with contextlib.suppress(UserError):  # a model that has no logits by step still has spikes
        output = record_output(subject.model, x)
        words += f"\n\u2192 {subject.data.class_names[output.predicted[0]]}"
    panels = [Panel(layer.name, layer.raster, layer.neurons, layer.rate) for layer in layers]
    return draw_raster(path, subject.title, words, _frames(x, output)[:, 0], panels, subject.theme)


def _animation(subject: Subject, shown: Inputs, output: Output) -> Path:
    names = subject.data.class_names
    return draw_output(
        subject.path("spikes.gif"),
        title=subject.title,
        meaning="spikes of the output neurons so far" if output.spiking else "sum of the logits so far, / T",
        frames=_frames(shown.inputs, output),
        gathered=output.gathered,
        names=names,
        inputs=shown.names,
        predicted=[names[label] for label in output.predicted],
        right=[None] * len(shown.names) if shown.labels is None else (output.predicted == shown.labels).tolist(),
        theme=subject.theme,
    )


def _frames(inputs: Tensor, output: Output | None) -> Tensor:
    """What the model sees in each step, `[T, B, C, H, W]`: of the encoder, where there is one."""
    if output and output.frames is not None:
        return output.frames
    if inputs.dim() == 5:
        return inputs.transpose(0, 1)
    return inputs[None].expand(len(output.gathered) if output else 1, *inputs.shape)
