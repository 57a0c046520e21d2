"""Photographs in one folder per class: ImageNet, and any data set in that layout.

data = create("dataset", "folder", data_dir="flowers")    # flowers/rose/1.jpg, flowers/tulip/7.png, ...
data.class_names                                          # ("rose", "tulip")
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder

from registry import register
from st_utils.data.base import DataSet
from st_utils.data.identity import Files
from st_utils.errors import UserError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET_CROP = 224 / 256


class Photos(Dataset):
    """A split of image files; `split[i]` opens the i-th file: (PIL image in RGB, int). Raises UserError, naming it."""

    def __init__(self, samples: list[tuple[str, int]]):
        self.paths = [path for path, _ in samples]
        self.targets = [target for _, target in samples]

    @property
    def made_of(self) -> list[Files]:
        """The files that the samples come from, see `data_identity`."""
        return [Files(self.paths)]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        path = self.paths[index]
        try:
            with Image.open(path) as image:
                return image.convert("RGB"), self.targets[index]
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged files
            raise UserError(f"{path} can't be read as an image ({error}): replace or remove it") from None


def find_images(folder: Path) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    """Find the images in a folder of class folders: the sorted (path, label) of each, and the class names.

    Raises UserError when the folder is missing, has no class folders, or one of them has no image.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}/ is missing: pass --data-dir DIR where DIR holds it")
    try:
        images = ImageFolder(str(folder))
    except FileNotFoundError as error:
        reason = str(error).split(". Supported")[0].rstrip(".")
        raise UserError(f"{folder}/ must hold one folder of images for each class: {reason}") from None
    return images.samples, tuple(images.classes)


def check_same_classes(root: Path, train: tuple[str, ...], test: tuple[str, ...], split: str) -> None:
    """Raise UserError, naming a missing class, unless both splits have the same class folders."""
    for here, there, folder in ((train, test, split), (test, train, "train")):
        if missing := sorted(set(here) - set(there)):
            raise UserError(f"{root}/{folder}/{missing[0]}/ is missing: both splits need the same classes")


@register.dataset(
    "imnet",
    aliases=("imagenet", "ImageNet", "imagenet1k", "imagenet_1k", "ILSVRC2012"),
    source="Russakovsky et al., arXiv 1409.0575",
)
def imnet(data_dir: str = "data", img_size: int | None = None) -> DataSet:
    """ImageNet in folders train/<wnid>/*.JPEG and val/<wnid>/*.JPEG; each folder is a class."""
    root = Path(data_dir).expanduser()
    places = [root / place for place in (".", "imnet", "imagenet", "ImageNet", "ILSVRC2012")]
    root = next((place for place in places if (place / "train").is_dir()), root)
    train, names = find_images(root / "train")
    test, test_names = find_images(root / "val")
    check_same_classes(root, names, test_names, "val")
    return _photographs("imnet", train, test, names, img_size)


@register.dataset("folder", aliases=("image_folder", "imagefolder"), source="the user's own")
def folder(data_dir: str = "data", img_size: int | None = None, holdout: int = 5) -> DataSet:
    """Images in one folder per class; every `holdout`-th image of a class is for testing."""
    if holdout < 2:
        raise UserError(f"folder: holdout is {holdout}: give 2 (every second image is for testing) or more")
    samples, names = find_images(Path(data_dir).expanduser())
    train, test = [], []
    count: dict[int, int] = {}
    for path, label in samples:
        count[label] = count.get(label, 0) + 1
        (train if count[label] % holdout else test).append((path, label))
    small = [names[label] for label, images in count.items() if images < holdout]
    if small:
        raise UserError(f"{data_dir}/{small[0]}/ has fewer than {holdout} images: add some, or lower holdout")
    return _photographs("folder", train, test, names, img_size)


def _photographs(
    name: str,
    train: list[tuple[str, int]],
    test: list[tuple[str, int]],
    names: tuple[str, ...],
    img_size: int | None,
) -> DataSet:
    side = 224 if img_size is None else img_size
    splits = Photos(train), Photos(test)
    return DataSet(name, *splits, len(names), 3, side, IMAGENET_MEAN, IMAGENET_STD, names, IMAGENET_CROP)
