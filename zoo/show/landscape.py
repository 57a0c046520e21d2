"""The loss around the trained weights: a curve, or contours and a surface; and the path of the training.

    python main.py --show landscape --resume runs/NAME                              # along one direction
    python main.py --show landscape --resume runs/NAME --x=-1:1:51 --y=-1:1:51      # along two
    python main.py --show landscape --resume runs/NAME --landscape-plane trajectory # where training went
    torchrun --nproc_per_node=8 main.py --show landscape ...                        # points shared out

Every point tests the model on all test images (`--test-images N`: on N). The surface is kept in
`pictures/landscape-<digest>.h5`; stopped or killed, the same command goes on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from st_utils.analysis.landscape import (
    Direction,
    Trajectory,
    around,
    free_weights,
    measure_surface,
    random_directions,
    trajectory,
)
from st_utils.analysis.surface import Axis, Point, Surface, read_surface, write_surface
from st_utils.data import EpochLoader
from st_utils.errors import UserError
from st_utils.pictures.landscape import Path2D, draw_contours, draw_curve, draw_path, draw_surface
from st_utils.training import checkpoint, distributed
from st_utils.training.evaluation import evaluate
from st_utils.training.identity import identity
from st_utils.training.settings import Settings
from st_utils.training.tensor_file import digest
from zoo.show.subject import Subject

logger = logging.getLogger("zoo")
CURVE = "-1:1:51"
TRAJECTORY_POINTS = 21  # along each axis of the trajectory's plane
SECONDS = 2.0  # between two writings of a surface: a kill costs that much work


def draw(subject: Subject) -> list[Path]:
    """Measure what is left of the surface, in all processes, and draw it in the first; returns the files it wrote."""
    folder = distributed.from_first(lambda: subject.folder)  # the other processes do not know the run's folder
    settings, weights = subject.settings, free_weights(subject.model, subject.settings.landscape_fixed)
    if not weights:
        raise UserError(f"no weight is left free: choose another --landscape-fixed than {settings.landscape_fixed}")
    trained = _trajectory(folder.parent, weights, settings)
    x, y = _axes(settings, trained)
    if settings.landscape_plane == "trajectory":
        directions = trained.directions
    else:
        directions = random_directions(weights, 2 if y else 1, settings.landscape_seed)
    wanted = Surface.empty(_identity(subject, directions), x, y)
    name = hashlib.sha256(json.dumps([wanted.identity, str(x), str(y)], sort_keys=True).encode()).hexdigest()[:8]
    path = folder / f"landscape-{name}.h5"
    surface = distributed.from_first(lambda: read_surface(path, wanted)) or wanted
    if surface.unmeasured():
        distributed.from_first(lambda: subject.path(path.name))  # makes the folder, or says why not
        _measure(subject, directions, surface, path)
    if distributed.rank() > 0:
        return []
    centre = surface.centre
    logger.info("at the trained weights: loss %.6g, top-1 %.2f %%", centre.loss, centre.top1)
    if np.ptp(surface.values["loss"]) == 0:
        logger.warning(
            "the loss is the same at all %d points: is the model trained? At its weights it fires %.3g spikes per "
            "neuron per step",
            surface.measured.size,
            centre.firing_rate,
        )
    return [*_pictures(subject, surface, trained), path]


def _trajectory(folder: Path, weights: Mapping[str, Tensor], settings: Settings) -> Trajectory | None:
    """The path of the checkpoints that were kept in a run's folder; None where they make none and none is asked for.

    Raises UserError where --landscape-plane asks for it.
    """
    needed, kept = settings.landscape_plane == "trajectory", checkpoint.kept_paths(folder)
    if len(kept) < 3:
        if needed:
            raise UserError(
                f"{folder} has {len(kept)} kept checkpoints, a trajectory takes 3: train with --keep-checkpoints N"
            )
        return None
    try:
        states = [checkpoint.load(path, alone=True) for path in kept]
        tested = [state["ema"] if state.get("ema") else state["model"] for state in states]
        return trajectory(weights, tested, [f"epoch {state['epoch']}" for state in states])
    except UserError as error:
        if needed:
            raise
        logger.warning("the path of the training is not drawn: %s", error)
        return None


def _axes(settings: Settings, trained: Trajectory | None) -> tuple[Axis, Axis | None]:
    """The coordinates along both directions; None for the second of a curve."""
    x, y = (text and Axis.parse(text) for text in (settings.x, settings.y))
    if settings.landscape_plane == "trajectory":
        return x or around(trained.path[:, 0], TRAJECTORY_POINTS), y or around(trained.path[:, 1], TRAJECTORY_POINTS)
    return x or Axis.parse(CURVE), y


def _identity(subject: Subject, directions: Sequence[Direction]) -> dict:
    """What a surface is made of: the run, its data and settings, the weights, the directions and how they were made."""
    settings = subject.settings

    def of(tensors: Direction) -> str:
        return digest([], {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})

    chosen = ("landscape_plane", "landscape_fixed", "landscape_seed")
    return {
        "run": identity(settings, subject.trainer.record),
        "weights": of(subject.model.state_dict()),
        "directions": [of(direction) for direction in directions],
        **{name: getattr(settings, name) for name in chosen},
    }


def _measure(subject: Subject, directions: Sequence[Direction], surface: Surface, path: Path) -> None:
    """Measure what is left of a surface, on all processes; the first one shows the progress and writes the file."""
    trainer, model = subject.trainer, subject.model
    # each point is measured by one process, on all test images, in the batches that one process alone would have
    loader = EpochLoader(
        trainer.test_loader.source, trainer.settings.batch_size, trainer.settings.seed, workers=trainer.settings.workers
    )

    def measure() -> Point:
        scores = evaluate(model, trainer.batches(loader, 0), autocast=trainer.autocast, alone=True)
        return Point(scores.loss, scores.top1, math.nan if scores.firing_rate is None else scores.firing_rate)

    first, written = distributed.rank() == 0, time.monotonic()
    points = " x ".join(map(str, reversed(surface.shape)))
    logger.info("landscape: %s points on %s test images, into %s", points, f"{len(loader.source):,}", path)
    with tqdm(
        total=surface.measured.size,
        initial=int(surface.measured.sum()),
        unit=" points",
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() or "ipykernel" in sys.modules else 20,
        disable=not first,
    ) as bar:

        def after_points() -> None:
            nonlocal written
            bar.update(int(surface.measured.sum()) - bar.n)
            if first and time.monotonic() - written > SECONDS:
                write_surface(path, surface)
                written = time.monotonic()

        try:
            measure_surface(
                model,
                directions,
                surface,
                measure,
                rank=distributed.rank(),
                world=distributed.world_size(),
                gathered=distributed.gathered,
                after_points=after_points,
            )
        finally:
            if first and surface.centre:
                write_surface(path, surface)


def _pictures(subject: Subject, surface: Surface, trained: Trajectory | None) -> list[Path]:
    """Draw the surface, and the path of the training in its own plane."""
    settings, theme = subject.settings, subject.theme
    title = (
        f"{subject.title}, {len(subject.trainer.test_loader.source):,} test images; "
        f"at the trained weights: loss {surface.centre.loss:.4f}, accuracy {surface.centre.top1:.2f}\N{NO-BREAK SPACE}%"
    )
    loss, top1 = surface.values["loss"], surface.values["top1"]
    line = trained and Path2D(trained.path, trained.names, trained.shares)
    curve, contours, three_d, path = (
        subject.path(f"landscape-{name}.png") for name in ("curve", "contours", "3d", "trajectory")
    )
    if surface.y is None:
        drawn = [draw_curve(curve, title, x=surface.x, loss=loss, top1=top1, theme=theme)]
    else:
        grid = {"x": surface.x, "y": surface.y, "loss": loss, "theme": theme}
        over, at = (line, path) if settings.landscape_plane == "trajectory" else (None, contours)
        drawn = [draw_contours(at, title, top1=top1, trained=over, **grid), draw_surface(three_d, title, **grid)]
    if line and path not in drawn:
        drawn.append(draw_path(path, title, trained=line, theme=theme))
    return drawn
