"""What a picture is made of: a trained model, its data, and the inputs to look at.

shown = subject.inputs(8)
logits = subject.model(shown.inputs)
subject.path("confusion.png")  # runs/NAME/pictures/confusion.png
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from st_utils.data import DataSet, FrameData, labels_of
from st_utils.data.loader import evenly_spaced
from st_utils.errors import UserError
from st_utils.files import refusal
from st_utils.pictures.style import STYLES, Style, Theme
from st_utils.training.settings import Settings
from st_utils.training.trainer import Trainer


class Inputs(NamedTuple):
    """Inputs of the model on its device: images `[N, C, H, W]` or frames `[N, T, C, H, W]`.

    Attributes:
        labels: class numbers `[N]`; None of files, whose classes nobody has said.
        names: what to call each input: its class, or its file's name.
    """

    inputs: Tensor
    labels: Tensor | None
    names: list[str]


@dataclass
class Subject:
    """A trained model and what pictures of it are made from.

    Attributes:
        trainer: with the trained weights loaded; its `test_loader` has the test images.
        folder: the pictures are written there.
        files: the images or recordings to look at; without any, test images.
    """

    trainer: Trainer
    data: DataSet
    folder: Path
    files: tuple[str, ...] = ()
    theme: Theme = "light"

    @property
    def model(self) -> nn.Module:
        """The model as it was tested, in evaluation mode."""
        return self.trainer.tested.eval()

    @property
    def settings(self) -> Settings:
        return self.trainer.settings

    @property
    def style(self) -> Style:
        """The colours of the theme."""
        return STYLES[self.theme]

    @property
    def title(self) -> str:
        """The model and the data, for the top of a picture."""
        return f"{self.settings.model}\non {self.data.name}"

    def path(self, name: str) -> Path:
        """The path of a picture to write; its folder is made. Raises UserError where the system refuses."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise refusal(self.folder, error) from error
        return self.folder / name

    def inputs(self, count: int, each_class: bool = False) -> Inputs:
        """The files' inputs, else those of `count` test images at even distances in the test set.

        With `each_class` they are the first test images of `count` classes, at even distances among the classes.
        """
        if self.files:
            inputs = torch.stack([self._read(Path(file)) for file in self.files])
            return Inputs(self.trainer.to_device(inputs), None, [Path(file).name for file in self.files])
        loader = self.trainer.test_loader
        if each_class:
            first = np.unique(labels_of(loader.source.samples), return_index=True)[1]
            inputs, labels = loader.samples(first[evenly_spaced(count, len(first))])
        else:
            inputs, labels = loader.evenly_spaced(count)
        names = [self.data.class_names[label] for label in labels.tolist()]
        return Inputs(self.trainer.to_device(inputs), labels, names)

    def _read(self, path: Path) -> Tensor:
        """One file as the data set's test images are read. Raises UserError, naming it."""
        source = self.trainer.test_loader.source
        if isinstance(self.data, FrameData):
            if self.data.read_frames is None:
                raise UserError(f"{self.data.name} has no files that could be given by --images: leave it out")
            sample = self.data.read_frames(path)
        else:
            try:
                with Image.open(path) as image:
                    sample = image.convert("L" if self.data.in_channels == 1 else "RGB")
            except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged files
                raise UserError(
                    f"{path} can't be read as an image: {getattr(error, 'strerror', None) or error}"
                ) from None
        return source.finish(torch.as_tensor(source.transform(sample))[None])[0]
