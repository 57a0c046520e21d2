import hashlib
import math

import pytest

from registry import create
from st_utils.data.events.frames import Recording
from st_utils.data.events.sets import CIFAR10, caltech_classes
from st_utils.data.events.splits import CIFAR10_DVS, NCALTECH101, held_out, split_recordings
from st_utils.errors import UserError

from .writers import some_events, write

# The published splits' hashes: results are comparable only while they hold.
HASHES = {
    "braincog": "64b91e953dbbcf56831555f4e068c5a6e05bad18f4c870cad51443c352480507",
    "spikingjelly": "86d32056cfcd6f2bb5d9ca6b1b2691fc8b91d29a17899687db22f03e5e1d4b52",
    "sdt": "86d32056cfcd6f2bb5d9ca6b1b2691fc8b91d29a17899687db22f03e5e1d4b52",
    "tebn": "c298261a3974e06edfc51ec7f23e12bf4a0394d3fa42cd2a51db34127292206d",
}


def published(tmp_path, name: str, numbers=range(1000)) -> tuple[list, list]:
    files = [
        Recording(tmp_path / class_name / f"cifar10_{class_name}_{number}.aedat", label)
        for label, class_name in enumerate(CIFAR10)
        for number in numbers
    ]
    return split_recordings("dvsc10", name, CIFAR10_DVS, files, CIFAR10)


def names(recordings) -> set[str]:
    return {f"{recording.path.parent.name}/{recording.path.name}" for recording in recordings}


@pytest.mark.parametrize("name", CIFAR10_DVS)
def test_dvsc10_splits_never_change_and_share_nothing(tmp_path, name):
    train, test = published(tmp_path, name)
    assert (len(train), len(test)) == (9000, 1000) and not names(train) & names(test)
    assert [sum(r.label == label for r in test) for label in range(10)] == [100] * 10
    assert hashlib.sha256("\n".join(sorted(names(test))).encode()).hexdigest() == HASHES[name]
    some, of_some = published(tmp_path, name, range(5, 1000, 7))  # a part of the data is split as the whole
    assert names(some) <= names(train) and names(of_some) <= names(test)


def test_spikingjellys_split_is_what_its_code_gives(tmp_path, spikingjelly_utils):
    """torchvision's DatasetFolder lists files in the order of their names as text; the first 90 % of a class train."""
    listed = sorted(f"cifar10_{name}_{i}.npz" for name in CIFAR10 for i in range(1000))
    by_label = [[i for i, file in enumerate(listed) if file.split("_")[1] == name] for name in CIFAR10]
    train, test = spikingjelly_utils._split_class_indices(by_label, 0.9, False)
    for ours, theirs in zip(published(tmp_path, "spikingjelly"), (train, test), strict=True):
        assert {r.path.stem for r in ours} == {listed[i].removesuffix(".npz") for i in theirs}
    assert names(published(tmp_path, "sdt")[1]) == names(published(tmp_path, "spikingjelly")[1])


def test_braincogs_and_tebns_split(tmp_path):
    """BrainCog: of 1,000 recordings a class, range(0, round(1000 * 0.9)) train; TEBN: 0 to 99 test."""
    assert {r.path.stem.split("_")[2] for r in published(tmp_path, "braincog")[1]} == {str(i) for i in range(900, 1000)}
    assert {r.path.stem.split("_")[2] for r in published(tmp_path, "tebn")[1]} == {str(i) for i in range(100)}


ROUNDING = {
    "braincog": lambda n: round(0.9 * n),
    "spikingjelly": lambda n: math.ceil(n * 0.9),
    "statten": lambda n: int(n * 0.9),
}


@pytest.mark.parametrize("name", NCALTECH101)
def test_ncaltech101_splits(tmp_path, name):
    import json

    from st_utils.data.events.splits import FILE

    counts = json.loads(FILE.read_text())["ncaltech101"]["counts"]
    classes = caltech_classes()
    assert list(counts) == sorted(counts) and len(counts) == 101 and sum(counts.values()) == 8709
    files = [
        Recording(tmp_path / class_name / f"image_{number:04d}.bin", label)
        for label, class_name in enumerate(classes)
        for number in range(1, counts[class_name] + 1)
    ]
    train, test = split_recordings("ncaltech101", name, NCALTECH101, files, classes)
    assert not names(train) & names(test) and len(train) + len(test) == 8709
    for label, class_name in enumerate(classes):
        assert sum(r.label == label for r in train) == ROUNDING[name](counts[class_name])
    after_a_gap = [Recording(tmp_path / "BACKGROUND_Google" / "image_0468.bin", 0)]
    assert split_recordings("ncaltech101", name, NCALTECH101, after_a_gap, classes) == ([], after_a_gap)


def test_braincogs_counts_are_ours():
    """The recordings of each class that BrainCog's own loader expects."""
    import json

    from braincog.datasets.ncaltech101.ncaltech101 import NCALTECH101 as THEIRS

    from st_utils.data.events.splits import FILE

    assert list(json.loads(FILE.read_text())["ncaltech101"]["counts"].values()) == THEIRS.cls_count


def test_a_changed_list_is_noticed(tmp_path, monkeypatch):
    from st_utils.data.events import splits

    changed = tmp_path / "splits.json"
    changed.write_text(splits.FILE.read_text().replace("925,", "125,"))
    monkeypatch.setattr(splits, "FILE", changed)
    held_out.cache_clear()
    with pytest.raises(UserError, match="its split braincog of dvsc10 is not the published one"):
        held_out("dvsc10", "braincog", CIFAR10)
    held_out.cache_clear()


def test_a_recording_without_a_number(tmp_path):
    with pytest.raises(UserError, match=r"plane\.aedat has no number in its name"):
        split_recordings("dvsc10", "tebn", CIFAR10_DVS, [Recording(tmp_path / "plane.aedat", 0)], CIFAR10)


@pytest.mark.parametrize("name", CIFAR10_DVS)
def test_no_frames_are_in_both_splits_of_what_is_loaded(tmp_path, name):
    for number in (3, 50, 98, 150, 907, 909, 950, 960, 991):
        write(tmp_path / "airplane" / f"cifar10_airplane_{number}.npz", **some_events(60, 128, 128, seed=number))
    data = create("dataset", f"dvsc10(split={name})", data_dir=str(tmp_path), cache_dir=str(tmp_path / ".cache"))
    train, test = ({split[i][0].tobytes() for i in range(len(split))} for split in (data.train, data.test))
    assert len(train) + len(test) == 9 and not train & test
