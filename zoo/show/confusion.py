"""The confusion matrix of the whole test set, the accuracy of each class and the worst images: PNG and JSON.

    python main.py --show confusion --resume runs/NAME
    zoo.show("confusion", "runs/NAME")[0]  # runs/NAME/pictures/confusion.png

Every run draws it at its end, from the last test.
"""

from __future__ import annotations

import json
from pathlib import Path

from st_utils.analysis.confusion import confusion
from st_utils.errors import UserError
from st_utils.files import write_atomic
from st_utils.pictures.confusion import SHOWN, Worst, draw_confusion
from zoo.show.subject import Subject


def draw(subject: Subject) -> list[Path]:
    """Draw the picture and write its numbers; every process calls it, the first one writes."""
    if subject.files:
        raise UserError("--show confusion draws the whole test set: leave out --images")
    trainer, names = subject.trainer, subject.data.class_names
    said = trainer.predictions()
    if trainer.rank > 0:
        return []
    found = confusion(said, len(names))
    places = found.worst(SHOWN)
    worst = Worst(
        trainer.test_loader.samples(said.indices[places])[0],
        truths=[names[label] for label in said.labels[places]],
        predicted=[names[label] for label in said.predicted[places]],
        losses=said.losses[places].tolist(),
    )
    table = subject.path("confusion.json")
    write_atomic(table, [json.dumps(found.plain(names)).encode() + b"\n"])
    picture = draw_confusion(
        subject.path("confusion.png"),
        title=subject.title,
        matrix=found.matrix,
        percent=found.percent(),
        names=names,
        pairs=found.pairs(20),
        worst=worst,
        theme=subject.theme,
    )
    return [picture, table]
