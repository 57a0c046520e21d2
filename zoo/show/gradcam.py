"""Draw Grad-CAM maps of a model: which pixels speak for the predicted class, and for the true one, by time step.

zoo.show("gradcam", "runs/NAME", images=["cat.png"], layer="blocks.0")

The file is `gradcam.png`. Needs the package `grad-cam`: pip install ".[pictures]".
"""

from __future__ import annotations

from pathlib import Path

import torch

from st_utils.analysis.grad_cam import grad_cam
from st_utils.errors import UserError
from st_utils.pictures.gradcam import Row, draw_grad_cam
from st_utils.pictures.samples import as_grey_or_rgb
from zoo.show.subject import Subject

INPUTS = 4  # test images


def draw(subject: Subject) -> list[Path]:
    """The path of the picture. Raises UserError without the package, or where no layer has rows and columns."""
    inputs, labels, names = subject.inputs(INPUTS)
    if inputs.shape[-2] == 1:
        raise UserError(f"{subject.data.name} is a sequence: --show gradcam draws images and event frames")
    with torch.no_grad():
        predicted = subject.model(inputs).argmax(1).tolist()
    asked = [(number, guess) for number, guess in enumerate(predicted)]
    if labels is not None:
        known = enumerate(labels.tolist())
        asked = sorted({*asked, *known}, key=lambda pair: (pair[0], pair[1] != predicted[pair[0]]))
    picked = [number for number, _ in asked]
    found = grad_cam(subject.model, inputs[picked], [wanted for _, wanted in asked], subject.settings.layer)
    shares = found.logits.softmax(1).cpu()
    images = as_grey_or_rgb(inputs)
    rows = []
    for place, (number, wanted) in enumerate(asked):
        is_true = None if labels is None else wanted == int(labels[number])
        roles = ["predicted"] * (wanted == predicted[number]) + ["true"] * bool(is_true)
        name = "" if labels is not None else f"{names[number]}\n"
        text = f"{name}for {subject.data.class_names[wanted]}\np = {shares[place, wanted]:.2f}\n{', '.join(roles)}"
        rows.append(Row(images[number], text, is_true, found.maps[:, place]))
    layer = f"Grad-CAM at {found.layer}, {found.grid[0]} x {found.grid[1]}"
    title = f"{subject.title}\n{layer}"
    return [draw_grad_cam(subject.path("gradcam.png"), title, rows, subject.theme)]
