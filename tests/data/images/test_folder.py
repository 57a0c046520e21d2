from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from registry import create
from st_utils.data import build_loaders
from st_utils.errors import UserError


def write_photos(folder: Path, count: int = 2, mode: str = "RGB") -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new(mode, (30 + i, 20), i).save(folder / f"{i}.JPEG")


@pytest.fixture
def imagenet(tmp_path) -> Path:
    """train/ and val/ with two classes each."""
    for split in ("train", "val"):
        for wnid in ("n01", "n02"):
            write_photos(tmp_path / split / wnid)
    return tmp_path


@pytest.mark.parametrize("place", [".", "imagenet"])
def test_imnet(imagenet, place, tmp_path):
    (tmp_path / place).mkdir(exist_ok=True)
    if place != ".":
        for split in ("train", "val"):
            (imagenet / split).rename(tmp_path / place / split)
    data = create("dataset", "ImageNet", data_dir=str(tmp_path))
    assert data.class_names == ("n01", "n02") and (len(data.train), len(data.test)) == (4, 4)
    assert (data.img_size, data.crop_pct) == (224, 0.875)
    _, test = build_loaders(data, batch_size=4)
    images, labels = next(iter(test))
    assert images.shape == (4, 3, 224, 224) and labels.tolist() == [0, 0, 1, 1]


def test_grey_photos_become_rgb(imagenet):
    write_photos(imagenet / "train" / "n00", mode="L")
    write_photos(imagenet / "val" / "n00", mode="CMYK")
    data = create("dataset", "imnet", data_dir=str(imagenet))
    assert data.train[0][0].mode == data.test[0][0].mode == "RGB"


@pytest.mark.parametrize("split", ["train", "val"])
def test_missing_split(imagenet, split):
    (imagenet / split).rename(imagenet / "elsewhere")
    with pytest.raises(UserError, match=f"{split}/ is missing: pass --data-dir"):
        create("dataset", "imnet", data_dir=str(imagenet))


def test_empty_class_folder(imagenet):
    (imagenet / "train" / "n03").mkdir()
    (imagenet / "val" / "n03").mkdir()
    (imagenet / "train" / "n03" / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"train/ must hold .* no valid file for the classes n03$"):
        create("dataset", "imnet", data_dir=str(imagenet))


def test_flat_split(imagenet):
    (imagenet / "val").rename(imagenet / "old")
    (imagenet / "val").mkdir()
    Image.new("RGB", (8, 8)).save(imagenet / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(UserError, match="val/ must hold one folder of images for each class"):
        create("dataset", "imnet", data_dir=str(imagenet))


@pytest.mark.parametrize(("has", "lacks"), [("train", "val"), ("val", "train")])
def test_classes_differ(imagenet, has, lacks):
    write_photos(imagenet / has / "n07")
    with pytest.raises(UserError, match=f"{lacks}/n07/ is missing"):
        create("dataset", "imnet", data_dir=str(imagenet))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("fault", ["truncated", "no image"])
def test_damaged_photo_is_one_line(imagenet, workers, fault, monkeypatch):
    monkeypatch.setattr("st_utils.data.loader.KEEP_BYTES", 0)  # or the workers would not be used
    path = imagenet / "val" / "n02" / "1.JPEG"
    noise = np.random.RandomState(0).randint(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1500] if fault == "truncated" else b"hello")
    _, test = build_loaders(create("dataset", "imnet", data_dir=str(imagenet)), 32, 2, workers=workers)
    with pytest.raises(UserError, match=f"^{path} can't be read as an image .*: replace or remove it$") as caught:
        list(test)
    assert "\n" not in str(caught.value)


def test_real_photos(real_data):
    data = create("dataset", "folder", data_dir=str(real_data / "imagenet_samples"))
    assert data.class_names == ("n01443537", "n03110669", "n03481172")
    assert (len(data.train), len(data.test), data.test.targets) == (12, 3, [0, 1, 2])
    assert not set(data.train.paths) & set(data.test.paths)
    train, test = build_loaders(data, 64, batch_size=12)
    assert next(iter(train))[0].shape == (12, 3, 64, 64) and next(iter(test))[0].shape == (3, 3, 64, 64)


def test_real_tiny_imagenet(real_data):
    data = create("dataset", "folder(holdout=4)", data_dir=str(real_data / "tiny_imagenet" / "train"))
    assert (data.num_classes, len(data.train), len(data.test)) == (10, 150, 50)
    assert all(data.train[i][0].mode == "RGB" for i in range(150))


@pytest.mark.parametrize(("spec", "message"), [("folder", "fewer than 5"), ("folder(holdout=1)", "holdout is 1")])
def test_folder_mistakes(tmp_path, spec, message):
    write_photos(tmp_path / "cats", 6)
    write_photos(tmp_path / "dogs", 2)
    with pytest.raises(UserError, match=message):
        create("dataset", spec, data_dir=str(tmp_path))
