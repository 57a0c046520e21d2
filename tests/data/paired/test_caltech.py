import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from registry import create, entry
from st_utils.contracts.data import check_data
from st_utils.data import build_loaders, check_pair
from st_utils.data.events.sets import caltech_classes
from st_utils.data.events.splits import NCALTECH101, published_splits
from st_utils.errors import UserError
from tests.data.events.loading import load

from .trees import caltech_tree, ncaltech_tree, photo

TABLE = published_splits("ncaltech101")
BORDER = {  # of each class the last numbers that a split trains and the first that it tests, and number 1
    name: sorted({1, *(TABLE[split]["train"][i] + more for split in NCALTECH101 for more in (0, 1))})
    for i, name in enumerate(TABLE["counts"])
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("caltech")
    caltech_tree(root, BORDER)
    ncaltech_tree(root, {name: BORDER[name] for name in ("BACKGROUND_Google", "Leopards", "accordion", "yin_yang")})
    return root


@pytest.fixture
def copy(tmp_path, tree) -> Path:
    """101_ObjectCategories whose class folders are links, to be changed by a test."""
    folder = tmp_path / "101_ObjectCategories"
    folder.mkdir()
    for place in (tree / "caltech101" / "101_ObjectCategories").iterdir():
        (folder / place.name).symlink_to(place)
    return folder


def test_the_classes_are_ncaltech101s(tree):
    from braincog.datasets.ncaltech101.ncaltech101 import NCALTECH101 as THEIRS

    data = create("dataset", "CALTECH101", data_dir=str(tree))
    check_data(entry("dataset", "caltech101"), data)
    assert (data.num_classes, data.class_names) == (101, caltech_classes())
    assert len(THEIRS.cls_count) == 101 and len(data.train) + len(data.test) == sum(map(len, BORDER.values()))
    ours = [name for name in data.class_names if name != "BACKGROUND_Google"]
    theirs = datasets.Caltech101(str(tree)).categories  # with Faces, without the background
    assert ours == [name for name in theirs if name != "Faces"]
    for path, label in zip(data.train.paths, data.train.targets, strict=True):
        assert Path(path).parent.name == data.class_names[label]


@pytest.mark.parametrize("split", NCALTECH101)
def test_no_photograph_of_a_test_recording_is_trained_on(tree, split):
    images = create("dataset", f"caltech101(split={split})", data_dir=str(tree))
    events = load(f"ncaltech101(split={split}, event_size=8)", tree)
    last = dict(zip(TABLE["counts"], TABLE[split]["train"], strict=True))
    for data in (images, events):
        for part, is_test in ((data.train, False), (data.test, True)):
            for name, label in zip(part.objects, part.targets, strict=True):
                folder, number = name.split("/")
                assert folder == data.class_names[label] and (int(number) > last[folder]) == is_test
    assert set(events.test.objects) <= set(images.test.objects)
    check_pair(images, events)


def test_other_splits_for_the_two_are_refused(tree):
    images = create("dataset", "caltech101(split=spikingjelly)", data_dir=str(tree))
    with pytest.raises(UserError, match=r"caltech101 trains on BACKGROUND_Google/421, which ncaltech101 tests on"):
        check_pair(images, load("ncaltech101(split=braincog, event_size=8)", tree))


def test_a_photograph_is_upright(tree):
    data = create("dataset", "caltech101", data_dir=str(tree))
    image = data.train[5][0]
    assert image.size == (12, 6) and np.asarray(image)[:, :5].min() > 100 > np.asarray(image)[:, 7:].max()
    _, test = build_loaders(data, img_size=8, batch_size=4)
    assert next(iter(test))[0].shape == (4, 3, 8, 8)


def test_case_of_folders_and_hidden_files(copy):
    (copy / "Leopards").rename(copy / "leopards")
    (copy / "__MACOSX").mkdir()
    (copy / ".ipynb_checkpoints").mkdir()
    place = (copy / "ant").resolve()
    (copy / "ant").unlink()
    (copy / "ant").mkdir()
    for path in place.iterdir():
        (copy / "ant" / path.name).symlink_to(path)
    (copy / "ant" / "._image_0001.jpg").write_bytes(b"\0")
    data = create("dataset", "caltech101", data_dir=str(copy))
    assert set(data.train.targets) == set(range(101))
    assert not any("/._" in path for path in data.train.paths)


FAULTS = {
    "no class": (lambda root: (root / "ant").unlink(), r"ant/ is missing: unpack all of 101_ObjectCategories"),
    "empty class": (lambda root: _replaced(root / "ant"), r"ant/ has no images"),
    "unknown": (lambda root: (root / "dragon").mkdir(), r"dragon/ is no class: .* are BACKGROUND_Google to yin_yang"),
    "twice": (lambda root: (root / "ANT").symlink_to(root / "ant"), r"ANT/ and ant/ are the same class"),
    "nothing": (lambda root: root.rename(root.parent / "else"), "caltech101: .* does not hold <class>/image_"),
}  # fmt: skip


def _replaced(folder: Path) -> None:
    folder.unlink()
    folder.mkdir()


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_one_line(copy, fault):
    change, message = FAULTS[fault]
    change(copy)
    with pytest.raises(UserError, match=message) as caught:
        create("dataset", "caltech101", data_dir=str(copy.parent))
    assert "\n" not in str(caught.value)


def test_mistakes(tree, tmp_path, caplog):
    with pytest.raises(UserError, match="caltech101: unknown split 'x'; choose one of braincog, spikingjelly, statten"):
        create("dataset", "caltech101(split=x)", data_dir=str(tree))
    create("dataset", "caltech101", data_dir=str(tree))
    assert f"{sum(map(len, BORDER.values()))} of 8,709 photographs" in caplog.text


def test_a_damaged_photograph_is_named(copy):
    _replaced(copy / "ant")
    for number in (1, 40):
        photo(copy / "ant" / f"image_{number:04d}.jpg", size=(64, 64))
    path = copy / "ant" / "image_0001.jpg"
    path.write_bytes(path.read_bytes()[:300])
    data = create("dataset", "caltech101", data_dir=str(copy))
    with pytest.raises(UserError, match=r"image_0001\.jpg can't be read as an image .*: replace or remove it"):
        data.train[data.train.objects.index("ant/1")]


def test_it_is_downloaded_by_torchvision(tree, tmp_path, mirror, monkeypatch):
    server, address = mirror
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(tree / "caltech101" / "101_ObjectCategories", "101_ObjectCategories")
    with zipfile.ZipFile(server / "caltech-101.zip", "w") as archive:
        archive.writestr("caltech-101/101_ObjectCategories.tar.gz", packed.getvalue())
    md5 = hashlib.md5((server / "caltech-101.zip").read_bytes()).hexdigest()
    whole = datasets.caltech.download_and_extract_archive

    def from_the_mirror(url: str, **arguments):
        assert url.endswith("/caltech-101.zip")
        whole(f"{address}caltech-101.zip", **{**arguments, "md5": md5})

    monkeypatch.setattr(datasets.caltech, "download_and_extract_archive", from_the_mirror)
    data = create("dataset", "caltech101", data_dir=str(tmp_path / "data"), download=True)
    assert len(data.train) + len(data.test) == sum(map(len, BORDER.values()))
    assert (tmp_path / "data/caltech101/101_ObjectCategories/ant/image_0001.jpg").is_file()
