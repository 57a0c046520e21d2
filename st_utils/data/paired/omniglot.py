"""Omniglot: characters of 50 alphabets, each drawn by 20 people, from the original zip files or their folders.

data = create("dataset", "omniglot", data_dir="data")     # data/omniglot-py/images_background.zip, ...
image, label = data.train[0]                              # PIL image of mode "L", 105 x 105, paper 255 and ink 0
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import Dataset
from torchvision import datasets

from registry import register
from st_utils.data.base import DataSet
from st_utils.data.checked_files import read_file, read_or_download
from st_utils.data.events.scan import find_root
from st_utils.data.paired.alphabets import (
    TRAIN_DRAWINGS,
    Character,
    character_of,
    check_drawings,
    drawing_number,
    is_hidden,
    object_name,
    ordered_characters,
)
from st_utils.errors import UserError

SIDE = 105
PLACES = ("omniglot-py", "omniglot", "Omniglot", "omniglot/omniglot-py", "omniglot/python", "python")
BACKGROUND = ("images_background", "images_background_small1", "images_background_small2")  # the first that is there
EVALUATION = ("images_evaluation",)
INK = 0.0783  # share of ink in the 5,840 drawings of the two small background sets


class Drawing(NamedTuple):
    """A drawing of a character; `number` is that of the person who drew it, 1 to 20; `bits` are packed, 1 is paper."""

    character: Character
    number: int
    bits: np.ndarray


class Drawings(Dataset):
    """A split of drawings, packed to bits `[N, 1379]`: 1,623 characters take 45 MB, not 358; `split[i]` is unpacked.

    `invert` makes ink 255 and paper 0.
    """

    def __init__(self, drawings: list[Drawing], labels: dict[Character, int], invert: bool):
        self.bits, self.invert = np.stack([drawing.bits for drawing in drawings]), invert
        self.targets = np.array([labels[drawing.character] for drawing in drawings], dtype=np.int64)
        self.objects = [object_name(drawing.character, drawing.number) for drawing in drawings]

    @property
    def made_of(self) -> list[np.ndarray | bool]:
        """What the samples come from, see `data_identity`."""
        return [self.bits, self.invert]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        paper = np.unpackbits(self.bits[index], count=SIDE * SIDE).reshape(SIDE, SIDE)
        return Image.fromarray((paper ^ self.invert) * np.uint8(255)), int(self.targets[index])


def read_drawing(data: bytes, path: PurePosixPath | Path, where: object) -> Drawing:
    """Read a PNG file's bytes; `path` says what it shows. Raises UserError, naming `where`, where it is damaged."""
    character = character_of(path.parts[-3] if len(path.parts) > 2 else "", path.parent.name, where)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            pixels = np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError, zlib.error) as error:
        raise UserError(f"{where} can't be read as an image ({error}): replace it") from None
    if pixels.shape != (SIDE, SIDE):
        size = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise UserError(f"{where} has {size} pixels, not {SIDE} x {SIDE}: replace it by the original")
    return Drawing(character, drawing_number(path.stem, where), np.packbits(pixels > 127))


def drawings_in_zip(path: Path) -> Iterator[Drawing]:
    """Read the drawings in an original zip file. Raises UserError where it is damaged: it has checksums."""
    try:
        with zipfile.ZipFile(io.BytesIO(read_file(path))) as archive:
            for name in sorted(archive.namelist()):
                member = PurePosixPath(name)
                if member.suffix == ".png" and not any(map(is_hidden, member.parts)):
                    yield read_drawing(archive.read(name), member, f"{path}: {name}")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise UserError(f"{path} is damaged ({error}): replace it, or pass --download") from None


def drawings_in_folder(folder: Path) -> Iterator[Drawing]:
    """Read the drawings in an unpacked folder <alphabet>/characterNN/NNNN_NN.png."""
    folder = folder / folder.name if (folder / folder.name).is_dir() else folder  # as some programs unpack it
    for path in sorted(folder.rglob("*.png")):
        if not any(map(is_hidden, path.relative_to(folder).parts)):
            yield read_drawing(read_file(path), path.relative_to(folder), path)


def source_of(root: Path, names: tuple[str, ...]) -> Path | None:
    """The first zip file or folder of these names; a zip file before its folder, which may be unpacked in part."""
    places = (root / f"{name}{suffix}" for name in names for suffix in (".zip", ""))
    return next((place for place in places if place.exists()), None)


def _read(data_dir: str) -> tuple[list[Drawing], list[Character]]:
    """All drawings, sorted by label and number, and the characters in the order of their labels."""
    root = find_root(
        "omniglot",
        data_dir,
        PLACES,
        lambda place: bool(source_of(place, BACKGROUND) or source_of(place, EVALUATION)),
        "images_background.zip or images_background/ (or images_evaluation, or one of the two images_background_small)",
    )
    drawings = []
    for names in (BACKGROUND, EVALUATION):
        if place := source_of(root, names):
            here = list(drawings_in_zip(place) if place.suffix == ".zip" else drawings_in_folder(place))
            if not here:
                raise UserError(f"{place} has no <alphabet>/characterNN/NNNN_NN.png: unpack it again, or --download")
            drawings += here
    characters = ordered_characters({drawing.character for drawing in drawings}, "omniglot", root)
    check_drawings([(drawing.character, drawing.number) for drawing in drawings], "omniglot", root)
    order = {character: label for label, character in enumerate(characters)}
    return sorted(drawings, key=lambda drawing: (order[drawing.character], drawing.number)), characters


@register.dataset(
    "omniglot",
    aliases=("Omniglot", "omni", "OMNIGLOT"),
    source="Lake, Salakhutdinov and Tenenbaum, Science 350(6266), 2015",
)
def omniglot(
    data_dir: str = "data", download: bool = False, img_size: int | None = None, invert: bool = False
) -> DataSet:
    """Omniglot: 1,623 characters of 50 alphabets, 105x105 black on white, 15 + 5 drawings each; or some alphabets.

    `images_background` and `images_evaluation`, or a small background set in place of the former, as .zip or unpacked.
    Drawings 01 to 15 are for training, 16 to 20 for testing, as `nomniglot` splits its recordings of them: no drawing
    whose recording is for testing is trained on. Paper is 1 and ink 0, as the authors feed it; `invert=true` makes
    ink 1, as MNIST and event frames have it. Images are resized to a side of 28. The authors' list of labels gives
    each evaluation character the label of a background one; their training takes the events' labels.
    """

    def source(root: str, *, download: bool) -> None:
        for background in (True, False):
            datasets.Omniglot(root, background=background, download=download)

    source.__name__ = "Omniglot"
    drawings, characters = read_or_download(lambda: _read(data_dir), source, data_dir, "omniglot-py", download)
    labels = {character: label for label, character in enumerate(characters)}
    train = Drawings([drawing for drawing in drawings if drawing.number <= TRAIN_DRAWINGS], labels, invert)
    test = Drawings([drawing for drawing in drawings if drawing.number > TRAIN_DRAWINGS], labels, invert)
    mean, std = INK if invert else 1 - INK, (INK * (1 - INK)) ** 0.5
    side = 28 if img_size is None else img_size
    names = tuple(map(str, characters))
    return DataSet("omniglot", train, test, len(names), 1, side, (round(mean, 4),), (round(std, 4),), names)
