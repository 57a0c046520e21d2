"""The digest of a data set: the same wherever the data lie, another when they are, cheap for a million files."""

from __future__ import annotations

import builtins
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from registry import create
from st_utils.data import ArrayImages, DataSet, Files, data_identity, identity
from st_utils.data.images import folder
from st_utils.data.images.cifar import cifar_splits
from st_utils.data.images.idx import idx_splits
from st_utils.data.images.sequences import Sequences
from tests.data.events import writers as event_writers
from tests.data.images.test_cifar import write_set as write_cifar
from tests.data.images.test_idx import source_of
from tests.data.images.test_idx import write_set as write_idx

EVENTS = event_writers.some_events()


def of_splits(train: Dataset, test: Dataset, names: tuple[str, ...] = tuple("0123456789")) -> dict:
    return data_identity(DataSet("made", train, test, len(names), 1, 8, (0.5,), (0.5,), names))


def photos(root: Path, splits: tuple = ("train", "val")) -> None:
    for split in splits:
        for number, label in enumerate("aabb"):
            path = root / split / label / f"{number}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(path)


def recordings(root: Path, suffix: str = ".bin", splits: tuple = ("Train", "Test"), names: tuple = ("0", "1")) -> None:
    for split in splits:
        for name in names:
            (root / split / name).mkdir(parents=True)
            for number in range(2):
                event_writers.write(root / split / name / f"{number}{suffix}", **EVENTS)


def shd(root: Path) -> None:
    for seed, split in enumerate(("train", "test")):
        event_writers.write_shd(root / f"shd_{split}.h5", [0, 1, 2], seed=seed)


def load(name: str, root: Path, **offer) -> dict:
    return data_identity(create("dataset", name, data_dir=str(root), cache_dir=str(root / ".cache"), **offer))


SETS = {  # name: what writes a small one, and a file whose last byte is a pixel or an event
    "imnet": (photos, "val/a/0.bmp"),
    "folder(holdout=2)": (lambda root: photos(root, ("",)), "b/3.bmp"),
    "nmnist": (recordings, "Test/1/1.bin"),
    "event_folder": (lambda root: recordings(root, splits=("train", "test")), "train/0/0.bin"),
    "ncars": (lambda root: recordings(root, ".dat", ("train", "test"), ("background", "cars")), "test/cars/1.dat"),
    "shd": (shd, "shd_test.h5"),
}


@pytest.mark.parametrize(("name", "write", "victim"), [(n, *rest) for n, rest in SETS.items()], ids=SETS)
def test_files_are_known_by_their_contents_and_not_by_their_place(tmp_path, name, write, victim):
    (tmp_path / "here").mkdir()
    write(tmp_path / "here")
    first = load(name, tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "a" / "there", ignore=shutil.ignore_patterns(".cache"))
    (tmp_path / "here").rename(tmp_path / "gone")
    assert load(name, tmp_path / "a" / "there") == first, "other place, new times of change, no cache yet"
    path = tmp_path / "a" / "there" / victim
    if name == "shd":  # the last bytes of an HDF5 file may be unused
        event_writers.write_shd(path, [0, 1, 2], seed=7)
    else:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    changed = load(name, tmp_path / "a" / "there")
    assert changed["digest"] != first["digest"]
    assert {**changed, "digest": 0} == {**first, "digest": 0}, "counts and classes are as they were"


def test_a_file_more_a_name_and_a_label_are_noticed(tmp_path):
    photos(tmp_path)
    digests = [load("imnet", tmp_path)["digest"]]
    (tmp_path / "train/a/0.bmp").rename(tmp_path / "train/a/00.bmp")
    digests.append(load("imnet", tmp_path)["digest"])
    shutil.copy(tmp_path / "train/a/00.bmp", tmp_path / "train/b/0.bmp")
    digests.append(load("imnet", tmp_path)["digest"])
    for split in ("train", "val"):
        (tmp_path / split / "b").rename(tmp_path / split / "c")
    digests.append(load("imnet", tmp_path)["digest"])
    assert len(set(digests)) == 4


def test_frames_are_no_data_and_neither_is_their_cache(tmp_path):
    recordings(tmp_path)
    made = [
        load("nmnist", tmp_path, step=2),
        load("nmnist", tmp_path, step=4),
        load("nmnist", tmp_path, step=4),  # from the cache
        data_identity(create("dataset", "nmnist", data_dir=str(tmp_path), cache_dir="none", step=4, event_size=8)),
    ]
    assert all(each == made[0] for each in made)
    assert data_identity(create("dataset", "digits_dvs", step=2)) == data_identity(create("dataset", "digits_dvs"))


def test_arrays_in_memory_are_digested_whole(tmp_path):
    source = source_of(write_idx(tmp_path / "set"))
    splits = [idx_splits("tiny", source, ("set",), str(tmp_path), False) for _ in range(2)]
    first = of_splits(*splits[0])
    assert of_splits(*splits[1]) == first
    changed = splits[1][1]
    changed.images = changed.images.copy()
    changed.images[-1, -1, -1] ^= 1
    assert of_splits(splits[1][0], changed)["digest"] != first["digest"], "the test images count"
    as_rows = [of_splits(*(Sequences(split, "rows") for split in pair))["digest"] for pair in splits]
    assert as_rows[0] != as_rows[1]
    shuffled = [Sequences(split, "pixels", np.arange(784)[::-1]) for split in splits[0]]
    assert of_splits(*shuffled)["digest"] != of_splits(*(Sequences(s, "pixels") for s in splits[0]))["digest"]


def test_cifar(tmp_path):
    from torchvision import datasets

    source = write_cifar(tmp_path / "one", datasets.CIFAR10, 10)
    train, test, names = cifar_splits("cifar10", source, str(tmp_path / "one"), False)
    first = of_splits(train, test, names)
    train.targets[0] = (train.targets[0] + 1) % 10
    assert of_splits(train, test, names)["digest"] != first["digest"]


def test_of_a_million_files_none_is_opened(tmp_path, monkeypatch):
    """The real scan of 30,000 files, past the number up to which contents are read; ImageNet has 1.3 million."""
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(15_000):
            (tmp_path / label / f"{number}.jpeg").touch()
    found, names = folder.find_images(tmp_path)
    samples = folder.Photos(found)

    def refuse(path, *rest, **further):
        raise AssertionError(f"{path} is read")

    monkeypatch.setattr(builtins, "open", refuse)
    first = of_splits(samples, samples, names)
    monkeypatch.undo()
    assert of_splits(folder.Photos(folder.find_images(tmp_path)[0]), samples, names) == first
    (tmp_path / "b" / "77.jpeg").write_bytes(b"x")
    assert of_splits(samples, samples, names)["digest"] != first["digest"], "a size counts"


def test_large_files_are_read_at_both_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "WHOLE_BYTES", 2**16)
    paths = [tmp_path / f"{number}.bin" for number in range(3)]
    for path in paths:
        path.write_bytes(os.urandom(2**15))

    def digest() -> str:
        split = ArrayImages(np.zeros((3, 1), np.uint8), [0, 1, 2])
        with monkeypatch.context() as patch:
            patch.setattr(ArrayImages, "made_of", [Files(paths)])
            return of_splits(split, split)["digest"]

    seen = {digest()}
    for place in (0, -1):
        content = bytearray(paths[1].read_bytes())
        content[place] ^= 1
        paths[1].write_bytes(content)
        seen.add(digest())
    assert len(seen) == 3


class Foreign(Dataset):
    """A data set of one's own that knows nothing of digests; `noise` changes each item every time."""

    def __init__(self, pixels: np.ndarray, noise: random.Random | None = None):
        self.pixels, self.targets, self.noise = pixels, [i % 2 for i in range(len(pixels))], noise

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int):
        image = self.pixels[index]
        shift = torch.rand(1).item() if self.noise is None else self.noise.random()
        return image + shift, self.targets[index]


def test_a_data_set_that_knows_nothing_of_digests_is_known_by_its_items():
    pixels = np.random.RandomState(0).rand(300, 2, 1, 8, 8).astype(np.float32)
    before = torch.get_rng_state()
    first = of_splits(Foreign(pixels), Foreign(pixels[:20]))
    assert torch.equal(torch.get_rng_state(), before), "the run's random numbers are as if nothing had been read"
    assert of_splits(Foreign(pixels.copy()), Foreign(pixels[:20].copy())) == first
    pixels[150, 0, 0, 0, 0] += 1
    assert of_splits(Foreign(pixels), Foreign(pixels[:20]))["digest"] != first["digest"]


def test_items_that_are_others_each_time_do_not_make_the_data_another():
    pixels = np.zeros((10, 2, 1, 8, 8), np.float32)
    digests = {of_splits(*(Foreign(pixels, random.Random()) for _ in range(2)))["digest"] for _ in range(3)}
    assert len(digests) == 1


def test_real_data_have_digests(real_data, cifar_root):
    places = {"mnist": real_data, "smnist": real_data, "nmnist": real_data, "cifar10": cifar_root}
    for name, place in places.items():
        data = create("dataset", name, data_dir=str(place), cache_dir="none")
        found = data_identity(data)
        assert (found["train"], found["test"]) == (len(data.train), len(data.test))
        assert all(isinstance(split.made_of, list) for split in (data.train, data.test)), "no sample of items"
