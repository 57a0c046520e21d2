import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from registry import create
from st_utils.data.images.idx import idx_splits, parse_idx, read_idx, read_split
from st_utils.errors import UserError

NAMES = [f"{split}-{kind}-ubyte" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_set(folder: Path, count: int = 6) -> dict[str, bytes]:
    """A tiny data set as four idx .gz files; returns each name's gzipped bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for seed, name in enumerate(NAMES):
        shape = (count, 28, 28) if "images" in name else (count,)
        array = np.random.RandomState(seed).randint(0, 256 if "images" in name else 10, shape)
        files[f"{name}.gz"] = gzip.compress(idx(array), mtime=0)
        (folder / f"{name}.gz").write_bytes(files[f"{name}.gz"])
    return files


def source_of(files: dict[str, bytes], url: str = "http://127.0.0.1:9/") -> type[datasets.MNIST]:
    """A torchvision class for the tiny set, with its true md5s, which downloads from `url`."""
    resources = [(name, hashlib.md5(data).hexdigest()) for name, data in files.items()]
    return type("Tiny", (datasets.MNIST,), {"resources": resources, "mirrors": [url]})


# -- real files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["mnist", "."], ids=["folder itself", "root"])
def test_real_mnist(real_data, place):
    mnist = create("dataset", "mnist", data_dir=str(real_data / place))
    assert np.bincount(mnist.train.targets).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert len(mnist.test) == 10_000 and mnist.test.targets[:5].tolist() == [7, 2, 1, 0, 4]
    image, label = mnist.train[0]
    assert (image.mode, image.size, label) == ("L", (28, 28), 5)
    pixels = mnist.train.images / 255
    assert (pixels.mean(), pixels.std()) == pytest.approx((mnist.mean[0], mnist.std[0]), abs=1e-4)


def copy_real(real_data: Path, folder: Path, unzip: bool = False) -> None:
    folder.mkdir(parents=True)
    for name in NAMES:
        data = (real_data / "mnist" / f"{name}.gz").read_bytes()
        (folder / (name if unzip else f"{name}.gz")).write_bytes(gzip.decompress(data) if unzip else data)


def test_real_mnist_unzipped_as_torchvision_keeps_it(real_data, tmp_path):
    copy_real(real_data, tmp_path / "MNIST" / "raw", unzip=True)
    plain = create("dataset", "mnist", data_dir=str(tmp_path))
    zipped = create("dataset", "MNIST", data_dir=str(real_data))
    assert np.array_equal(plain.train.images, zipped.train.images)
    assert np.array_equal(plain.test.targets, zipped.test.targets)


@pytest.mark.parametrize("unzip", [False, True], ids=["gz", "raw"])
@pytest.mark.parametrize("fault", ["flipped bit", "truncated"])
def test_damage_to_a_real_file_is_named(real_data, tmp_path, fault, unzip):
    copy_real(real_data, tmp_path / "raw", unzip)
    path = tmp_path / "raw" / (NAMES[2] + ("" if unzip else ".gz"))
    data = bytearray(path.read_bytes())
    if fault == "truncated":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"{path} is damaged or not the official file.*--download"):
        create("dataset", "mnist", data_dir=str(tmp_path))


def test_mnist_is_not_taken_for_fashion(real_data):
    with pytest.raises(UserError, match="not the official file"):
        create("dataset", "fashion_mnist", data_dir=str(real_data / "mnist"))


# -- small files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "fashion"])
def test_missing(tmp_path, name):
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte.gz is missing .*--data-dir DIR.*--download"):
        create("dataset", name, data_dir=str(tmp_path / "nowhere"))
    assert not list(tmp_path.iterdir())


def test_one_file_missing(tmp_path):
    files = write_set(tmp_path / "Tiny" / "raw")
    (tmp_path / "Tiny" / "raw" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte.gz is missing: pass --data-dir"):
        idx_splits("tiny", source_of(files), (), str(tmp_path), download=False)


def test_read_split(tmp_path):
    write_set(tmp_path)
    split = read_split(tmp_path, "train", {}, 10)
    assert split.images.shape == (6, 28, 28) and len(split) == 6
    assert split[3][1] == split.targets[3]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "starts with nothing, not 00000803"),
        (b"\x00\x00\x08\x01" + bytes(20), "starts with 00000801, not 00000803"),
        (b"PK\x03\x04 a zip", "starts with 504b0304"),
        (b"\x00\x00\x08\x03\x00\x00", "damaged: 6 bytes"),
        (idx(np.zeros((2, 4, 4)))[:-1], "damaged: 47 bytes, but its header says 48"),
        (idx(np.zeros((2, 4, 4))) + b"x", "damaged: 49 bytes, but its header says 48"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "damaged: 16 bytes, but its header says 7922816245"),
    ],
)  # fmt: skip
def test_malformed_idx(data, message):
    with pytest.raises(UserError, match=message):
        parse_idx(data, 3, Path("some-idx3-ubyte"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:-4],
        lambda data: data[:40] + bytes([data[40] ^ 16]) + data[41:],
        lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:],
        lambda data: b"no gzip at all",
        lambda data: b"",
    ],
    ids=["half", "no end", "flipped bit", "wrong checksum", "foreign", "empty"],
)
def test_damaged_gz(tmp_path, spoil):
    write_set(tmp_path)
    path = tmp_path / f"{NAMES[0]}.gz"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(UserError, match=f"{NAMES[0]}.gz") as caught:
        read_idx(tmp_path, NAMES[0], {})
    assert "\n" not in str(caught.value)


def test_label_out_of_range(tmp_path):
    write_set(tmp_path)
    (tmp_path / f"{NAMES[1]}.gz").write_bytes(gzip.compress(idx(np.array([0, 1, 2, 3, 11, 5]))))
    with pytest.raises(UserError, match=r"train-labels-idx1-ubyte.gz has the label 11, but there are 10"):
        read_split(tmp_path, "train", {}, 10)


def test_counts_differ(tmp_path):
    write_set(tmp_path)
    (tmp_path / f"{NAMES[1]}.gz").write_bytes(gzip.compress(idx(np.arange(5))))
    with pytest.raises(UserError, match=r"has 6 images, but .* has 5 labels"):
        read_split(tmp_path, "train", {}, 10)


# -- downloading -------------------------------------------------------------------------------------------


def test_download(mirror, tmp_path):
    folder, url = mirror
    source = source_of(write_set(folder), url)
    train, _ = idx_splits("tiny", source, (), str(tmp_path / "new" / "data"), download=True)
    assert np.array_equal(train.images, read_split(folder, "train", {}, 10).images)
    assert not list((tmp_path / "new" / "data").glob(".download-*"))
    for file in folder.iterdir():  # from here on, downloading again would fail
        file.unlink()
    idx_splits("tiny", source, (), str(tmp_path / "new" / "data"), download=True)


def test_download_replaces_a_damaged_file(mirror, tmp_path):
    folder, url = mirror
    files = write_set(folder)
    write_set(tmp_path / "Tiny" / "raw")
    path = tmp_path / "Tiny" / "raw" / f"{NAMES[3]}.gz"
    path.write_bytes(path.read_bytes()[:-3])
    idx_splits("tiny", source_of(files, url), (), str(tmp_path), download=True)
    assert path.read_bytes() == files[path.name]


@pytest.mark.parametrize("fault", ["missing", "truncated", "no server"])
def test_failed_download_leaves_nothing(mirror, tmp_path, fault):
    folder, url = mirror
    files = write_set(folder)
    last = folder / f"{NAMES[3]}.gz"
    last.unlink() if fault == "missing" else last.write_bytes(last.read_bytes()[:-3])
    source = source_of(files) if fault == "no server" else source_of(files, url)
    with pytest.raises(UserError, match=r"downloading Tiny into .* failed") as caught:
        idx_splits("tiny", source, (), str(tmp_path / "data"), download=True)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "data").iterdir())
