"""Caltech-101: the photographs that N-Caltech101's camera looked at, with N-Caltech101's labels and splits.

data = create("dataset", "caltech101(split=braincog)", data_dir="data")
data.train[0]                            # (PIL image in RGB, 0 to 100)
data.train.objects[0]                    # "BACKGROUND_Google/1": the photograph of image_0001.jpg and image_0001.bin
"""

from __future__ import annotations

import logging
from pathlib import Path

from torchvision.datasets import Caltech101
from torchvision.datasets.folder import IMG_EXTENSIONS

from registry import register
from st_utils.data.base import DataSet
from st_utils.data.checked_files import read_or_download
from st_utils.data.events.frames import Recording
from st_utils.data.events.scan import find_root, natural_key
from st_utils.data.events.sets import caltech_classes, caltech_object
from st_utils.data.events.splits import NCALTECH101, published_splits, split_recordings
from st_utils.data.images.folder import IMAGENET_MEAN, IMAGENET_STD, Photos
from st_utils.errors import UserError

logger = logging.getLogger(__name__)

LEFT_OUT = "Faces"  # Caltech-101's 102nd folder, of the same people as Faces_easy: N-Caltech101 does not have it
PLACES = (
    "caltech101/101_ObjectCategories",
    "101_ObjectCategories",
    "caltech-101/101_ObjectCategories",
    "Caltech101/101_ObjectCategories",
    "caltech101",
    "Caltech101",
)


def photos_in(folder: Path) -> list[Path]:
    """The image files in a folder in natural order, without hidden ones."""
    files = (path for path in folder.iterdir() if path.suffix.lower() in IMG_EXTENSIONS)
    return sorted((path for path in files if not path.name.startswith(".")), key=natural_key)


def labelled_photos(root: Path) -> list[Recording]:
    """The photographs in class folders, sorted by label, then by number.

    Upper and lower case in the names of class folders do not matter. Raises UserError for a class without photographs
    or without a folder, for two folders of one class, and for a folder that is no class.
    """
    names = caltech_classes()
    labels = {name.lower(): label for label, name in enumerate(names)}
    folders: dict[int, Path] = {}
    for place in sorted(root.iterdir()):
        if not place.is_dir() or place.name.startswith((".", "__")) or place.name.lower() == LEFT_OUT.lower():
            continue
        if (label := labels.get(place.name.lower())) is None:
            raise UserError(f"{place}/ is no class: the 101 classes are {names[0]} to {names[-1]}; remove it")
        if label in folders:
            raise UserError(f"{folders[label]}/ and {place.name}/ are the same class: remove one")
        folders[label] = place
    found = []
    for label, name in enumerate(names):
        if label not in folders:
            raise UserError(f"{root / name}/ is missing: unpack all of 101_ObjectCategories, or pass --download")
        photos = photos_in(folders[label])
        if not photos:
            raise UserError(f"{folders[label]}/ has no images: unpack it again, or pass --download")
        found += [Recording(path, label) for path in photos]
    return found


@register.dataset(
    "caltech101",
    aliases=("CALTECH101", "Caltech101", "caltech_101", "caltech"),
    source="Fei-Fei, Fergus and Perona, CVPR Workshop on Generative-Model Based Vision, 2004",
)
def caltech101(
    data_dir: str = "data", download: bool = False, img_size: int | None = None, split: str = "braincog"
) -> DataSet:
    """Caltech-101 as N-Caltech101 has it: 8,709 photographs of 101 classes, the background among them, without Faces.

    `caltech101/101_ObjectCategories/<class>/image_0001.jpg`, as torchvision unpacks it. Classes, labels, file numbers
    and splits (braincog, spikingjelly or statten) are those of `ncaltech101`: with the same split, no photograph whose
    recording tests is trained on. torchvision's own class list has Faces in the background's place (8,677
    photographs), for which the class sizes in the authors' code do not hold; their draw of a source image also reaches
    one place beyond the training images of its class.
    """
    names = caltech_classes()
    if split not in NCALTECH101:
        raise UserError(f"caltech101: unknown split {split!r}; choose one of {', '.join(NCALTECH101)}")

    def read() -> list[Recording]:
        def holds(place: Path) -> bool:
            return any(place.joinpath(name).is_dir() and photos_in(place / name) for name in names)

        root = find_root("caltech101", data_dir, PLACES, holds, "<class>/image_*.jpg with classes such as accordion/")
        return labelled_photos(root)

    recordings = read_or_download(read, Caltech101, data_dir, "caltech101", download)
    whole = sum(published_splits("ncaltech101")["counts"].values())
    if len(recordings) < whole:
        logger.warning("caltech101: %s of %s photographs are in %s", f"{len(recordings):,}", f"{whole:,}", data_dir)
    both = split_recordings("ncaltech101", split, NCALTECH101, recordings, names)
    parts = []
    for name, chosen in zip(("training", "test"), both, strict=True):
        if not chosen:
            raise UserError(f"caltech101: {data_dir} has no {name} images: unpack all of 101_ObjectCategories")
        part = Photos([(str(recording.path), recording.label) for recording in chosen])
        part.objects = [caltech_object(recording) for recording in chosen]
        parts.append(part)
    side = 48 if img_size is None else img_size
    return DataSet("caltech101", *parts, 101, 3, side, IMAGENET_MEAN, IMAGENET_STD, names)
