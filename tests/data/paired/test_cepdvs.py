import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from registry import create, entry
from st_utils.contracts.data import check_data
from st_utils.data import check_pair
from st_utils.data.paired.cepdvs import SUPERCLASSES, labels_in, split_numbers
from st_utils.errors import UserError
from tests.data.events.loading import load

from .trees import cepdvs_tree

LABELS = [label for label in range(20) for _ in range(6)]  # 0 to 5 are of class 0


def number_of(name: str) -> int:
    return int(name.removeprefix("picture "))


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cepdvs")
    cepdvs_tree(root, LABELS)
    return root


@pytest.fixture
def copy(tmp_path, tree) -> Path:
    """The files as links, to be changed by a test."""
    for path in (tree / "CEP-DVS").rglob("*.*"):
        place = tmp_path / path.relative_to(tree)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, place)
    return tmp_path


def test_the_split_is_the_authors_at_their_portion():
    """Of blocks of 500 files of a class: 250 train, the next 100 test (get_CEPDVS_data, portion=0.5)."""
    train, test = split_numbers([label for label in range(20) for _ in range(500)], 0.5)
    assert len(SUPERCLASSES) == 20 and list(SUPERCLASSES) == sorted(SUPERCLASSES)  # and so are the authors' labels
    assert train == {500 * label + i for label in range(20) for i in range(250)}
    assert test == {500 * label + i for label in range(20) for i in range(250, 350)}


@pytest.mark.parametrize("portion", [0.3, 0.5, 0.8])
def test_pictures_and_recordings_have_the_same_split(tree, portion):
    events = load(f"CEPDVS(train_portion={portion})", tree, step=2)
    images = create("dataset", f"RGBCEPDVS(train_portion={portion})", data_dir=str(tree))
    for name, data in (("cepdvs", events), ("rgbcepdvs", images)):
        check_data(entry("dataset", name), data)
    check_pair(images, events)
    train, test = split_numbers(LABELS, portion)
    for data in (events, images):
        assert data.class_names == SUPERCLASSES and data.num_classes == 20
        assert {number_of(name) for name in data.train.objects} == train and {
            number_of(name) for name in data.test.objects
        } == test
        for split in (data.train, data.test):
            assert [LABELS[number_of(name)] for name in split.objects] == list(split.targets)
    assert not set(images.train.objects) & set(events.test.objects)


def test_another_portion_for_the_pictures_is_refused(tree):
    images = create("dataset", "rgbcepdvs(train_portion=0.8)", data_dir=str(tree))
    with pytest.raises(UserError, match="rgbcepdvs trains on picture 105 and 19 others, which cepdvs tests on"):
        check_pair(images, load("cepdvs", tree, step=2))


def test_frames_hold_the_events_of_their_file(tree):
    data = load("cepdvs(event_size=20)", tree, step=2)
    index = data.train.objects.index("picture 13")
    mat = loadmat(tree / "CEP-DVS/data/MAT/img/13.mat")
    x, y, p = (mat[key].reshape(-1) for key in ("x", "y", "p"))
    wanted = np.zeros((2, 20, 20))
    np.add.at(wanted, ((p == 1).astype(int), y.astype(int) * 20 // 40, x.astype(int) * 20 // 60), 1)  # by its extent
    assert np.array_equal(data.train[index][0].sum(0), wanted) and set(p) == {-1, 1}


def test_a_picture_is_the_one_of_its_number(tree):
    data = create("dataset", "rgbcepdvs", data_dir=str(tree))
    for index, name in enumerate(data.train.objects):
        image = np.asarray(data.train[index][0])  # trees.photo: width 12, height 6, bright at the left
        assert image.shape == (6, 12, 3) and abs(int(image[:, :4].mean()) - 150 - number_of(name) % 100) < 3


def test_labels_follow_the_numbers_not_the_names_order(tmp_path):
    labels = [(7 * number) % 20 for number in range(200)]
    cepdvs_tree(tmp_path, labels, numbers=())
    assert labels_in(tmp_path / "CEP-DVS" / "pathFile.csv") == labels
    train, test = split_numbers(labels, 0.5)
    assert sorted(train) == list(range(100)) and sorted(test) == list(range(100, 140))


FAULTS = {
    "no table": (lambda root: (root / "pathFile.csv").unlink(), r"pathFile\.csv is missing: unpack the original"),
    "no folder": (lambda root: (root / "data/MAT").rename(root / "x"), r"data/MAT/img is missing: unpack"),
    "word": (lambda root: _table(root, "0 a b c cats d\n"), r"pathFile\.csv: the line of number 0 has no superclass"),
    "short table": (lambda root: _table(root, "0 a b c fish d\n"), r"1\.mat has no line in pathFile.csv, .* 0 to 0"),
    "damaged": (lambda root: _cut(root / "data/MAT/img/8.mat"), r"8\.mat is .*: replace or remove it"),
    "a class is not there in part": (
        lambda root: [(root / f"data/MAT/img/{i}.mat").unlink() for i in range(120) if i % 6 == 3],
        r"cepdvs: .*data/MAT/img has no test files: unpack all 10,000",
    ),
    "nothing": (lambda root: root.rename(root.parent / "x"), r"cepdvs: .* does not hold pathFile.csv and data/MAT/"),
}  # fmt: skip


def _table(root: Path, text: str) -> None:
    (root / "pathFile.csv").unlink()
    (root / "pathFile.csv").write_text(f"heading\n{text}")


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-20])


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_one_line(copy, fault):
    change, message = FAULTS[fault]
    change(copy / "CEP-DVS")
    with pytest.raises(UserError, match=message) as caught:
        load("cepdvs", copy, step=2)
    assert "\n" not in str(caught.value)


def test_hidden_files_are_left_out_and_missing_ones_change_no_split(copy):
    (copy / "CEP-DVS/data/MAT/img/._8.mat").write_bytes(b"\0")
    (copy / "CEP-DVS/data/img/Thumbs.db").write_bytes(b"\0")
    (copy / "CEP-DVS/data/MAT/img/0.mat").unlink()
    events, images = load("cepdvs", copy, step=2), create("dataset", "rgbcepdvs", data_dir=str(copy))
    assert events.train.objects == images.train.objects[1:] and events.test.objects == images.test.objects


def test_the_authors_pickles_are_refused_and_never_loaded(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was here"),)

    (tmp_path / "CEP-DVS").mkdir()
    (tmp_path / "CEP-DVS/data.pkl").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(UserError, match=r"pathFile\.csv is missing \(data\.pkl and targets\.pkl .* never loaded\)"):
        load("cepdvs", tmp_path)
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize("portion", [0.0, 0.9, 1.5])
def test_portions(tree, portion):
    with pytest.raises(UserError, match=f"train_portion is {portion}: give above 0 and up to 0.8; a fifth tests"):
        load(f"cepdvs(train_portion={portion})", tree)
