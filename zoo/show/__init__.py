"""Pictures of a trained model: one command, or one call, per kind.

    python main.py --show confusion --resume runs/NAME
    zoo.show("attention", "runs/NAME", images=["cat.png"], theme="dark")  # the paths of the pictures

A kind is a module here with a function `draw(subject)`; KINDS lists them. It computes (st_utils/analysis), draws
(st_utils/pictures) and returns the paths of the files it wrote into `<run>/pictures/`.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from registry import nearest
from st_utils.errors import UserError
from zoo.show.subject import Subject

# name -> what it shows; the module of the name is imported when the picture is asked for
KINDS: dict[str, str] = {
    "confusion": "which classes are taken for which, and the worst images",
    "spikes": "spikes by layer, and the output's spike counts as they grow over the time steps",
    "attention": "what attends to what, by head and time step",
    "gradcam": "the pixels that speak for a class (Grad-CAM), by time step",
    "embedding": "the test images' features in two dimensions, coloured by class",
    "landscape": "the loss around the trained weights (Li et al. 2018)",
}


def check_kind(kind: str) -> None:
    """Raise UserError unless pictures of this kind are known."""
    if kind not in KINDS:
        raise UserError(f"unknown picture {kind!r}{nearest(kind, KINDS)}; pictures: {', '.join(KINDS)}")


def draw(kind: str, subject: Subject) -> list[Path]:
    """Draw a picture of this kind; returns the paths of the files."""
    return importlib.import_module(f"zoo.show.{kind}").draw(subject)
