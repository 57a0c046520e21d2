import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from registry import SpecError, create
from st_utils.data import build_loaders
from st_utils.data.events.files import read_events
from st_utils.data.events.sets import CIFAR10, caltech_classes
from st_utils.errors import UserError

from .loading import load
from .writers import some_events, write


def digits_folder(root: Path, train: int = 3, test: int = 1) -> None:
    """Train/<digit>/*.bin and Test/<digit>/*.bin for three digits."""
    for split, count in (("Train", train), ("Test", test)):
        for digit in (0, 3, 9):
            for i in range(count):
                write(root / split / str(digit) / f"{i:05d}.bin", **some_events(100 + i, seed=digit + i))


# -- real recordings ---------------------------------------------------------------------------------------


def test_real_nmnist(real_data, tmp_path):
    data = create("dataset", "N_MNIST", data_dir=str(real_data / "nmnist"), cache_dir=str(tmp_path), step=10)
    assert np.bincount(data.train.targets).tolist() == [50] * 10
    assert np.bincount(data.test.targets).tolist() == [4, 7, 4, 6, 7, 4, 5, 8, 1, 6]
    assert (data.train.events.min(), data.train.events.max(), round(data.train.events.mean())) == (1112, 7152, 4152)
    assert (data.test.events.min(), data.test.events.max(), round(data.test.events.mean())) == (1665, 6147, 3877)
    sums = np.array([data.train[i][0].sum() for i in range(500)])
    assert np.array_equal(sums, data.train.events) and data.train[0][0].shape == (10, 2, 34, 34)


# -- layouts, on small files of the same formats -----------------------------------------------------------


@pytest.mark.parametrize("place", [".", "NMNIST", "nmnist"])
def test_nmnist(tmp_path, place):
    digits_folder(tmp_path / place)
    data = load("nmnist", tmp_path)
    assert data.train.targets.tolist() == [0] * 3 + [3] * 3 + [9] * 3 and data.test.targets.tolist() == [0, 3, 9]
    assert data.train.events.tolist() == [100, 101, 102] * 3 and data.num_classes == 10


def cifar_folder(root: Path, suffix: str, numbers: range = range(1000), classes: tuple = CIFAR10[:2]) -> None:
    for i, name in enumerate(classes):
        for number in numbers:
            events = some_events(20, 128, 128, seed=number + i)
            write(root / name / f"cifar10_{name}_{number}{suffix}", **events)


@pytest.mark.parametrize("suffix", [".aedat", ".aedat4", ".npz"])
def test_dvsc10_formats(tmp_path, suffix):
    cifar_folder(tmp_path, suffix, range(895, 905))
    data = load("cifar10dvs(split=braincog)", tmp_path)
    assert data.train.targets.tolist() == [0] * 5 + [1] * 5 and (data.num_classes, len(data.test)) == (10, 10)
    frames, raw = data.train[0][0], read_events(tmp_path / "airplane" / f"cifar10_airplane_895{suffix}")
    if suffix == ".aedat":  # turned upright, and the polarity from jAER's to the usual one, as SpikingJelly does
        assert frames.sum(0)[1 - raw.p, 127 - raw.y, 127 - raw.x].all() and raw.x[0] == 0
    else:
        assert frames.sum(0)[raw.p, raw.y, raw.x].all()


def test_dvsc10_has_no_such_split(tmp_path):
    cifar_folder(tmp_path, ".npz", range(895, 905))
    with pytest.raises(UserError, match="unknown split 'random'; choose one of braincog, spikingjelly, sdt, tebn"):
        load("dvsc10(split=random)", tmp_path)
    with pytest.raises(UserError, match="has no training recordings: add some, or choose another split"):
        cifar_folder(tmp_path / "b", ".npz", range(900, 903))
        load("dvsc10", tmp_path / "b")


@pytest.mark.parametrize("folder", [".", "Caltech101", "NCALTECH101/Caltech101"])
def test_ncaltech101(tmp_path, folder):
    for name in ("accordion", "yin_yang"):
        for number in range(44, 60):
            write(tmp_path / folder / name / f"image_{number:04d}.bin", **some_events(50, 200, 170, seed=number))
    data = load("ncaltech101(event_size=64)", tmp_path)
    assert set(data.train.targets) == {4, 100} and data.num_classes == 101
    assert data.class_names == caltech_classes() and data.train[0][0].sum() == 50
    assert np.bincount(data.test.targets)[[4, 100]].tolist() == [9, 5]  # above 50 of 55, above 54 of 60


# -- faults ------------------------------------------------------------------------------------------------


def _at(root: Path) -> Path:
    return root / "Test" / "3" / "00000.bin"


FAULTS = {
    "cut": (lambda root: _at(root).write_bytes(b"123456789"), r"Test/3/00000\.bin is cut off"),
    "foreign": (lambda root: _at(root).write_bytes(b"hello" * 9), "outside of a sensor of 34 x 34"),
    "empty": (lambda root: _at(root).write_bytes(b""), r"00000\.bin has no events"),
    "empty class": (lambda root: _at(root).unlink(), r"Test/3/ has no event files \(\.bin\): add some"),
    "label": (lambda root: (root / "Test/3").rename(root / "Test/10"), "Test/10/ is no class: .* are 0 to 9"),
    "no split": (lambda root: (root / "Test").rename(root / "Else"), "Test/ is missing: pass --data-dir"),
    "nothing": (lambda root: (root / "Train").rename(root / "Else"), r"does not hold Train/<digit>/\*\.bin"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_one_line_and_leaves_no_cache(tmp_path, fault):
    digits_folder(tmp_path)
    change, message = FAULTS[fault]
    change(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        load("nmnist", tmp_path)
    assert "\n" not in str(caught.value)
    caches = [path.name for path in (tmp_path / ".cache").glob("*")] if (tmp_path / ".cache").exists() else []
    assert not [name for name in caches if "test" in name or name.startswith(".new-")]


def test_arguments(tmp_path):
    digits_folder(tmp_path)
    assert load("nmnist(event_size=17, integration=time)", tmp_path, step=3).train[0][0].shape == (3, 2, 17, 17)
    with pytest.raises(SpecError, match="integration"):
        load("nmnist(integration=frames)", tmp_path)
    with pytest.raises(UserError, match="step is 0"):
        load("nmnist", tmp_path, step=0)


# -- batches -----------------------------------------------------------------------------------------------


def epochs(data, augment, which, workers=0, seed=7) -> list:
    train, _ = build_loaders(data, None, 4, workers=workers, seed=seed, event_augment=augment)
    found = []
    for epoch in which:
        train.set_epoch(epoch)
        found.append(list(train))
    return found


def same(left, right) -> bool:
    return all(torch.equal(a, b) for x, y in zip(left, right, strict=True) for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("augment", [None, "nda", "hflip+snn_augment_wide", "braincog"])
def test_an_epoch_of_frames_is_a_function_of_seed_and_epoch(tmp_path, augment, monkeypatch):
    digits_folder(tmp_path, train=5)
    data = load("nmnist", tmp_path)
    first = epochs(data, augment, range(3))
    assert first[0][0][0].shape == (4, 4, 2, 34, 34) and first[0][0][0].dtype == torch.float32
    monkeypatch.setattr("st_utils.data.loader.KEEP_BYTES", 0)  # or the workers would not be used
    resumed = epochs(data, augment, [2, 0], workers=2)
    assert same(first[2], resumed[0]) and same(first[0], resumed[1])
    assert not same(first[0], first[1]) and not same(first[0], epochs(data, augment, [0], seed=8)[0])


def test_batches_hold_the_counts_as_they_are(tmp_path):
    digits_folder(tmp_path)
    data = load("nmnist", tmp_path)
    _, test = build_loaders(data, None, 2, event_augment="nda")
    frames = torch.cat([inputs for inputs, _ in test])
    assert frames.sum((1, 2, 3, 4)).tolist() == [100.0] * 3
    train, _ = build_loaders(data, None, 9)
    assert next(iter(train))[0].sum() == sum([100, 101, 102] * 3)


def test_loaders_of_frames_refuse_and_warn(tmp_path, caplog):
    from st_utils.data import Augment

    digits_folder(tmp_path)
    data = load("nmnist", tmp_path)
    with pytest.raises(UserError, match="has frames of 34, not of 20: give --event-size"):
        build_loaders(data, 20, 2)
    with pytest.raises(UserError, match="event_augment has 'mirror': give names of hflip"):
        build_loaders(data, None, 2, event_augment="hflip+mirror")
    build_loaders(data, None, 2, augment=Augment(hflip=0.5))
    assert "the augmentation of images is ignored" in caplog.text


# -- downloads ---------------------------------------------------------------------------------------------


def test_nmnist_is_downloaded_by_tonic_and_put_in_its_place(tmp_path, mirror, monkeypatch):
    import hashlib

    import tonic

    server, address = mirror
    digits_folder(tmp_path / "made")
    for name in ("Train", "Test"):
        with zipfile.ZipFile(server / f"{name.lower()}.zip", "w") as archive:
            for path in sorted((tmp_path / "made" / name).rglob("*.bin")):
                archive.write(path, path.relative_to(tmp_path / "made"))
        content = (server / f"{name.lower()}.zip").read_bytes()
        monkeypatch.setattr(tonic.datasets.NMNIST, f"{name.lower()}_url", f"{address}{name.lower()}.zip")
        monkeypatch.setattr(tonic.datasets.NMNIST, f"{name.lower()}_md5", hashlib.md5(content).hexdigest())
    data = create("dataset", "nmnist", data_dir=str(tmp_path / "data"), cache_dir=str(tmp_path / "c"), download=True)
    assert len(data.train) == 9 and (tmp_path / "data" / "NMNIST" / "Train" / "9" / "00000.bin").is_file()
    assert not list((tmp_path / "data").glob(".download-*"))


def test_a_download_that_fails_is_one_line(tmp_path, mirror, monkeypatch):
    import tonic

    _, address = mirror
    monkeypatch.setattr(tonic.datasets.DVSGesture, "train_url", f"{address}gone.tar.gz")
    with pytest.raises(UserError, match="downloading DVSGesture into .* failed: .*404") as caught:
        create("dataset", "dvsg", data_dir=str(tmp_path / "data"), download=True)
    assert "\n" not in str(caught.value) and not list((tmp_path / "data").glob("*"))


def test_a_download_that_is_not_the_official_file(tmp_path, mirror, monkeypatch):
    import tonic

    server, address = mirror
    with tarfile.open(server / "train.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("ibmGestureTrain/a"), io.BytesIO(b""))
    monkeypatch.setattr(tonic.datasets.DVSGesture, "train_url", f"{address}train.tar.gz")
    with pytest.raises(UserError, match="downloading DVSGesture into .* failed"):
        create("dataset", "dvsg", data_dir=str(tmp_path / "data"), download=True)
    assert not list((tmp_path / "data").glob("*"))
