import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from registry import create
from st_utils.data.images.cifar import cifar_splits, read_pickle
from st_utils.errors import UserError

# -- real files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [".", "cifar-10-batches-py"], ids=["root", "folder itself"])
def test_real_cifar10(cifar_root, place):
    cifar = create("dataset", "CIFAR10", data_dir=str(cifar_root / place))
    assert np.bincount(cifar.train.targets).tolist() == [5000] * 10
    assert np.bincount(cifar.test.targets).tolist() == [1000] * 10
    assert cifar.class_names[:3] == ("airplane", "automobile", "bird")
    ours, theirs = cifar.train[12_345], datasets.CIFAR10(str(cifar_root))[12_345]
    assert ours[0].mode == "RGB" and np.array_equal(ours[0], theirs[0]) and ours[1] == theirs[1]


def test_statistics(cifar_root):
    cifar = create("dataset", "cifar10", data_dir=str(cifar_root))
    levels = np.arange(256) / 255
    for channel in range(3):
        share = np.bincount(cifar.train.images[..., channel].ravel()) / (50_000 * 32 * 32)
        mean = share @ levels
        assert mean == pytest.approx(cifar.mean[channel], abs=1e-4)
        assert (share @ (levels - mean) ** 2) ** 0.5 == pytest.approx(cifar.std[channel], abs=1e-4)


@pytest.mark.parametrize("fault", ["flipped bit", "truncated", "missing"])
def test_damage_to_a_real_file_is_named(cifar_root, tmp_path, fault):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for file in (cifar_root / folder.name).iterdir():
        (folder / file.name).symlink_to(file)
    path = folder / "data_batch_3"
    data = bytearray(path.read_bytes())
    path.unlink()
    if fault == "truncated":
        path.write_bytes(data[:1_000_000])
    elif fault == "flipped bit":
        data[1_000_000] ^= 4
        path.write_bytes(data)
    with pytest.raises(UserError, match=f"{path} is (missing|damaged).*--download"):
        create("dataset", "cifar10", data_dir=str(tmp_path))


# -- small files -------------------------------------------------------------------------------------------


def write_set(folder: Path, like: type[datasets.CIFAR10], classes: int) -> type[datasets.CIFAR10]:
    """A tiny set in the layout of a torchvision class, 4 images a file; returns the class with its md5s."""
    folder.mkdir(parents=True)

    def write(name: str, content: dict) -> list[str]:
        data = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(name: str) -> list[str]:
        random = np.random.RandomState(len(name))
        key = "labels" if classes == 10 else "fine_labels"
        pixels = random.randint(0, 256, (4, 3072), dtype=np.uint8)
        return write(name, {"data": pixels, key: random.randint(0, classes, 4).tolist()})

    names = {like.meta["key"]: [f"class {i}" for i in range(classes)]}
    meta_file, meta_md5 = write(like.meta["filename"], names)
    lists = {split: [batch(name) for name, _ in getattr(like, split)] for split in ("train_list", "test_list")}
    return type("Tiny", (like,), {**lists, "meta": {**like.meta, "filename": meta_file, "md5": meta_md5}})


@pytest.mark.parametrize(("like", "classes", "count"), [(datasets.CIFAR10, 10, 20), (datasets.CIFAR100, 100, 4)])
def test_layouts(tmp_path, like, classes, count):
    source = write_set(tmp_path / like.base_folder, like, classes)
    for place in (tmp_path, tmp_path / like.base_folder):
        train, test, names = cifar_splits("tiny", source, str(place), download=False)
        assert (len(train), len(test), len(names)) == (count, 4, classes)
    theirs = source(str(tmp_path))
    assert np.array_equal(train.images, theirs.data) and train.targets.tolist() == theirs.targets


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_missing(tmp_path, name):
    with pytest.raises(UserError, match=f"^{name}: .* is missing .*--data-dir DIR.*--download$"):
        create("dataset", name, data_dir=str(tmp_path))


def test_label_out_of_range(tmp_path):
    source = write_set(tmp_path / "cifar-10-batches-py", datasets.CIFAR10, 10)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    data = pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [10]})
    path.write_bytes(data)
    source.test_list = [["test_batch", hashlib.md5(data).hexdigest()]]
    with pytest.raises(UserError, match="test_batch has the label 10, but there are 10 classes"):
        cifar_splits("tiny", source, str(tmp_path), download=False)


def test_a_foreign_pickle_is_never_loaded(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was here"),)

    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(UserError, match="data_batch_1 is damaged or not the official file"):
        read_pickle(path, "c99cafc152244af753f735de768cd75f")
    assert not (tmp_path / "was here").exists()


def test_a_folder_in_place_of_a_file(tmp_path):
    (tmp_path / "test_batch").write_bytes(b"")
    (tmp_path / "batches.meta").mkdir()
    with pytest.raises(UserError, match=r"batches.meta can't be read: Is a directory"):
        create("dataset", "cifar10", data_dir=str(tmp_path))
