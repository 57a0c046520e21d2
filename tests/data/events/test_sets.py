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

from .writers import aedat3_bytes, some_events, write, write_shd


def digits_folder(root: Path, train: int = 3, test: int = 1) -> None:
    """Train/<digit>/*.bin and Test/<digit>/*.bin for three digits."""
    for split, count in (("Train", train), ("Test", test)):
        for digit in (0, 3, 9):
            for i in range(count):
                write(root / split / str(digit) / f"{i:05d}.bin", **some_events(100 + i, seed=digit + i))


def load(spec: str, root: Path, **offer):
    return create("dataset", spec, data_dir=str(root), cache_dir=str(root / ".cache"), **offer)


# -- real recordings ---------------------------------------------------------------------------------------


def test_real_nmnist(real_data, tmp_path):
    data = create("dataset", "N_MNIST", data_dir=str(real_data / "nmnist"), cache_dir=str(tmp_path), step=10)
    assert np.bincount(data.train.targets).tolist() == [50] * 10
    assert np.bincount(data.test.targets).tolist() == [4, 7, 4, 6, 7, 4, 5, 8, 1, 6]
    assert (data.train.events.min(), data.train.events.max(), round(data.train.events.mean())) == (1112, 7152, 4152)
    assert (data.test.events.min(), data.test.events.max(), round(data.test.events.mean())) == (1665, 6147, 3877)
    sums = np.array([data.train[i][0].sum() for i in range(500)])
    assert np.array_equal(sums, data.train.events) and data.train[0][0].shape == (10, 2, 34, 34)


def test_real_gestures(real_data, tmp_path):
    data = create("dataset", "dvsg(parts=5)", data_dir=str(real_data / "dvs128_gesture"), cache_dir=str(tmp_path))
    assert (len(data.train), len(data.test), data.num_classes) == (28, 7, 11)
    assert sorted(set(data.test.targets.tolist())) == [0, 1, 3, 4, 6, 7, 8]
    assert data.train.events.sum() + data.test.events.sum() == 883_467
    assert data.train[0][0].sum() == data.train.events[0] and data.train[0][0].shape == (4, 2, 128, 128)


def test_real_objects(real_data, tmp_path):
    data = create("dataset", "event_folder", data_dir=str(real_data / "dvs128_objects"), cache_dir=str(tmp_path))
    assert data.class_names == ("Lapiseira", "Tesoura") and (len(data.train), len(data.test)) == (16, 4)
    assert data.train.events.sum() + data.test.events.sum() == 126_164 + 143_655


def test_real_samples_of_many_formats(real_data, tmp_path):
    data = create(
        "dataset", "event_folder(parts=5)", data_dir=str(real_data / "event_samples"), cache_dir=str(tmp_path)
    )
    assert data.class_names == ("sample", "sample_ncars", "sample_nmnist", "sample_stmnist")
    assert data.train.events.sum() + data.test.events.sum() == 111_954 + 2_009 + 4_325 + 2_346


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


def test_gestures_as_tonic_stores_them(tmp_path):
    for split, users in (("ibmGestureTrain", 2), ("ibmGestureTest", 1)):
        for user in range(users):
            for label in (0, 10):
                write(
                    tmp_path / split / f"user{user:02d}_led" / f"{label}.npy", **some_events(80, 128, 128, seed=label)
                )
    data = load("dvs128gesture", tmp_path)
    assert data.train.targets.tolist() == [0, 10, 0, 10] and data.test.targets.tolist() == [0, 10]


def test_gestures_as_spikingjelly_stores_them(tmp_path):
    for split in ("train", "test"):
        for label in (0, 10):
            write(tmp_path / "events_np" / split / str(label) / "user01_led_0.npz", **some_events(80, 128, 128))
    assert load("dvsg", tmp_path).train.targets.tolist() == [0, 10]


def test_gestures_as_they_were_published(tmp_path):
    """AEDAT 3.1 with several gestures in a file: their spans of time are in a table."""
    events = some_events(1000, 128, 128)
    for name in ("user01_led", "user02_led"):
        (tmp_path / f"{name}.aedat").write_bytes(aedat3_bytes(**events))
        table = "class,startTime_usec,endTime_usec\n1,0,100000\n11,150000,299999\n"
        (tmp_path / f"{name}_labels.csv").write_text(table)
    (tmp_path / "trials_to_train.txt").write_text("user01_led.aedat\n")
    (tmp_path / "trials_to_test.txt").write_text("user02_led.aedat\n\n")
    data = load("dvsg", tmp_path)
    assert data.train.targets.tolist() == [0, 10]
    inside = [(events["t"] < 100_000).sum(), ((events["t"] >= 150_000) & (events["t"] < 299_999)).sum()]
    assert data.train.events.tolist() == inside == data.test.events.tolist()
    (tmp_path / "user01_led_labels.csv").write_text("class,startTime_usec,endTime_usec\n12,0,100000\n")
    with pytest.raises(UserError, match=r"user01_led_labels\.csv has the label '12', but gestures are 1 to 11"):
        load("dvsg", tmp_path)
    (tmp_path / "user01_led_labels.csv").write_text("class,startTime_usec,endTime_usec\n1,0\n")
    with pytest.raises(UserError, match=r"user01_led_labels\.csv is damaged"):
        load("dvsg", tmp_path)


def test_ncars_takes_each_recordings_own_extent(tmp_path):
    for split in ("n-cars_train", "n-cars_test"):
        for name, width in (("cars", 100), ("background", 50)):
            write(tmp_path / split / name / "obj_000001_td.dat", **some_events(60, width, 40))
    data = load("ncars(event_size=10)", tmp_path)
    assert data.train.targets.tolist() == [0, 1] and data.class_names == ("background", "cars")
    for frames, _ in (data.train[0], data.train[1]):
        assert frames.sum() == 60 and frames.sum((0, 1))[[0, 0, -1, -1], [0, -1, 0, -1]].all()  # the four corners


def test_esimagenet_is_centred_and_has_eight_steps(tmp_path):
    root = tmp_path / "ES-imagenet-0.18"
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        pos = np.array([[0, 0, 1], [199, 149, 8], [10, 20, 4]], np.uint8)
        np.savez(root / split / "n01_1.npz", pos=pos, neg=np.array([[5, 6, 2]], np.uint8))
        (root / f"{split}label.txt").write_text("n01_1.JPEG 999 200 150\n")
    data = load("esimagenet", tmp_path, step=8)
    frames, label = data.train[0]
    assert label == 999 and frames.shape == (8, 2, 224, 224) and frames.sum() == 4
    # BrainCog: rows from (254 - 200) // 2 - 16 = 11 on, columns from (254 - 150) // 2 - 16 = 36 on
    assert frames[0, 1, 11, 36] == frames[7, 1, 210, 185] == frames[3, 1, 21, 56] == frames[1, 0, 16, 42] == 1
    assert load("esimagenet", tmp_path, step=2).train[0][0].sum((1, 2, 3)).tolist() == [3, 1]
    (root / "vallabel.txt").write_text("n01_1.JPEG 1000 200 150\n")
    with pytest.raises(UserError, match=r"vallabel\.txt, line 1 has the label 1000, but there are 1000 classes"):
        load("esimagenet", tmp_path)
    (root / "vallabel.txt").write_text("n01_2.JPEG 1 200 150\n")
    with pytest.raises(UserError, match=r"n01_2\.npz is missing, which vallabel\.txt lists"):
        load("esimagenet", tmp_path)


def test_shd(tmp_path):
    write_shd(tmp_path / "shd_train.h5", [0, 19, 7])
    write_shd(tmp_path / "shd_test.h5", [3])
    data = load("shd(event_size=8)", tmp_path, step=5)
    assert data.train.targets.tolist() == [0, 19, 7] and (data.num_classes, data.in_channels) == (20, 1)
    frames = data.train[0][0]
    assert frames.shape == (5, 1, 8, 8) and frames.sum() == 50 == data.train.events[0]


def test_shd_bins_by_hand(tmp_path):
    """One channel of each quarter, evenly in time: 8 spikes in 2 frames of 4 rows and 4 columns."""
    from st_utils.data.events.files import events_of
    from st_utils.data.events.shd import Spectrogram

    events = events_of(np.tile([0, 175, 350, 699], 2), np.zeros(8), np.arange(8) * 1000, np.ones(8))
    for integration in ("count", "time"):
        frames = Spectrogram(2, 4, (700, 1), integration, channels=1)(events)
        assert frames[:, 0].tolist() == [np.eye(4).tolist()] * 2


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:2000]), r"shd_test\.h5 can't be read as SHD's HDF5 file"),
        (lambda p: write_shd(p, [20]), r"shd_test\.h5 has the label 20, but there are 20 classes"),
        (
            lambda p: write_shd(p, [1], units=[700] * 50),
            r"shd_test\.h5, recording 0 has no spikes of channels 0 to 699",
        ),
    ],
    ids=["cut", "label", "channel"],
)
def test_shd_faults(tmp_path, fault, message):
    for split in ("train", "test"):
        write_shd(tmp_path / f"shd_{split}.h5", [1])
    fault(tmp_path / "shd_test.h5")
    with pytest.raises(UserError, match=message):
        load("shd", tmp_path)
    assert len(list((tmp_path / ".cache").glob("shd-test*"))) == 0


def test_event_folder(tmp_path):
    for name in ("b", "a"):
        for i in range(6):
            write(tmp_path / name / f"{i}.dat", **some_events(50, 30, 20, seed=i))
    data = load("event_folder(holdout=3)", tmp_path)
    assert data.class_names == ("a", "b") and (len(data.train), data.test.targets.tolist()) == (8, [0, 0, 1, 1])
    with pytest.raises(UserError, match="holdout is 1"):
        load("event_folder(holdout=1)", tmp_path)
    with pytest.raises(UserError, match="a/ has fewer than 7 recordings"):
        load("event_folder(holdout=7)", tmp_path)
    with pytest.raises(UserError, match="outside of a sensor of 10 x 10"):
        load("event_folder(sensor=(10, 10))", tmp_path)


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
