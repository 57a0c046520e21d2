"""Folders of photographs, one folder a class: ImageNet, and any set laid out like it."""

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
    """`paths` with their `targets`; opens a file when its image is asked for: (PIL image in RGB, int)."""

    def __init__(self, samples: list[tuple[str, int]]):
        self.paths = [path for path, _ in samples]
        self.targets = [target for _, target in samples]

    @property
    def made_of(self) -> list[Files]:
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


def scan(folder: Path) -> tuple[list[tuple[str, int]], tuple[str, ...]]:
    """The (path, label) of every image below a folder of class folders, sorted, and the class names.

    Raises UserError when the folder is missing, has no class folders, or one of them has no image.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}/ is missing: pass --data-dir DIR where DIR holds it")
    try:
        found = ImageFolder(str(folder))
    except FileNotFoundError as error:
        reason = str(error).split(". Supported")[0].rstrip(".")
        raise UserError(f"{folder}/ must hold one folder of images for each class: {reason}") from None
    return found.samples, tuple(found.classes)


def check_same_classes(root: Path, train: tuple[str, ...], test: tuple[str, ...], split: str) -> None:
    """Raise UserError, naming one class, unless both splits have the same class folders."""
    for here, there, folder in ((train, test, split), (test, train, "train")):
        if missing := sorted(set(here) - set(there)):
            raise UserError(f"{root}/{folder}/{missing[0]}/ is missing: both splits need the same classes")


@register.dataset(
    "imnet",
    aliases=("imagenet", "ImageNet", "imagenet1k", "imagenet_1k", "ILSVRC2012"),
    source="Russakovsky et al., arXiv 1409.0575",
)
def imnet(data_dir: str = "data", img_size: int | None = None) -> DataSet:
    """ImageNet as folders train/<wnid>/*.JPEG and val/<wnid>/*.JPEG; as many classes as there are folders."""
    root = Path(data_dir).expanduser()
    places = [root / place for place in (".", "imnet", "imagenet", "ImageNet", "ILSVRC2012")]
    root = next((place for place in places if (place / "train").is_dir()), root)
    train, names = scan(root / "train")
    test, test_names = scan(root / "val")
    check_same_classes(root, names, test_names, "val")
    return _photographs("imnet", train, test, names, img_size)


@register.dataset("folder", aliases=("image_folder", "imagefolder"), source="the user's own")
def folder(data_dir: str = "data", img_size: int | None = None, holdout: int = 5) -> DataSet:
    """Any folder with one folder of images for each class, every `holdout`-th of which is for testing."""
    if holdout < 2:
        raise UserError(f"folder: holdout is {holdout}: give 2 (every second image is for testing) or more")
    samples, names = scan(Path(data_dir).expanduser())
    train, test = [], []
    place: dict[int, int] = {}
    for path, label in samples:
        place[label] = place.get(label, 0) + 1
        (train if place[label] % holdout else test).append((path, label))
    small = [names[label] for label, count in place.items() if count < holdout]
    if small:
        raise UserError(f"{data_dir}/{small[0]}/ has fewer than {holdout} images: add some, or lower holdout")
    return _photographs("folder", train, test, names, img_size)


def _photographs(name: str, train: list, test: list, names: tuple[str, ...], img_size: int | None) -> DataSet:
    side = 224 if img_size is None else img_size
    splits = Photos(train), Photos(test)
    return DataSet(name, *splits, len(names), 3, side, IMAGENET_MEAN, IMAGENET_STD, names, IMAGENET_CROP)
