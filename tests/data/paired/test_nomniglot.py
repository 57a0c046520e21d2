import csv
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from registry import create, entry
from st_utils.contracts.data import check_data
from st_utils.data import check_pair
from st_utils.data.events.files import read_events
from st_utils.data.paired.nomniglot import DrawingFraming
from st_utils.errors import UserError
from tests.data.events.loading import load
from tests.data.events.writers import some_events

from .trees import ANGELIC, BLACKFOOT, OJIBWE, drawings, nomniglot_tree, omniglot_zip, written


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Omniglot's zip files, N-Omniglot's raw files, and below cut/ the files that BrainCog's loader makes of them."""
    root = tmp_path_factory.mktemp("nomniglot")
    nomniglot_tree(root / "NOmniglot", [ANGELIC, OJIBWE])
    nomniglot_tree(root / "cut", [ANGELIC, OJIBWE], cut=True)
    omniglot_zip(root / "images_background.zip", drawings(OJIBWE))
    omniglot_zip(root / "images_evaluation.zip", drawings(ANGELIC))
    return root


@pytest.fixture
def copy(tmp_path, tree) -> Path:
    """One alphabet's raw files, to be changed by a test."""
    for path in (tree / "NOmniglot").rglob(f"{OJIBWE}/*/*"):
        place = tmp_path / path.relative_to(tree / "NOmniglot")
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, place)
    return tmp_path


def test_labels_split_and_objects_are_omniglots(tree):
    events, images = load("nomniglot", tree, step=2), create("dataset", "omniglot", data_dir=str(tree))
    check_data(entry("dataset", "nomniglot"), events)
    check_pair(images, events)
    assert events.class_names == images.class_names and events.num_classes == 34
    for ours, theirs in ((events.train, images.train), (events.test, images.test)):
        assert ours.objects == theirs.objects and ours.targets.tolist() == theirs.targets.tolist()
    assert not set(images.train.objects) & set(events.test.objects)


def test_a_drawing_has_its_own_events_of_the_middle_of_the_sensor(tree):
    data = load("nomniglot(event_size=250, integration=count)", tree, step=1)
    events = written(ANGELIC, 7)
    for split, name, number in ((data.train, "Angelic/character07/03", 3), (data.test, "Angelic/character07/20", 20)):
        index = split.objects.index(name)
        own = np.arange(24 * (number - 1), 24 * number)
        x, y, p = (events[key][own] for key in "xyp")
        inside = (x >= 54) & (x < 304) & (y >= 4) & (y < 254)
        frames = split[index][0][0]
        wanted = np.zeros((2, 250, 250))
        np.add.at(wanted, (p[inside], y[inside] - 4, x[inside] - 54), 1)
        # the last event of a drawing is at its end, which the authors' cut leaves out
        assert 0 < inside.sum() < 24 and np.abs(frames - wanted).sum() <= 1 and wanted.sum() - frames.sum() in (0, 1)


def test_files_that_braincog_cut_are_the_same_data(tree):
    raw, cut = load("nomniglot", tree, step=3), load("nomniglot", tree / "cut", step=3)
    assert raw.train.objects == cut.train.objects and raw.class_names == cut.class_names
    assert np.array_equal(raw.train.frames, cut.train.frames) and np.array_equal(raw.test.frames, cut.test.frames)


def test_a_real_recording_as_braincog_reads_it(real_data, tmp_path):
    """A real AEDAT 4 file, cut and integrated by BrainCog's own functions and by ours."""
    from braincog.datasets.NOmniglot import utils as theirs

    recording = real_data / "event_samples" / "sample.aedat4"
    t = read_events(recording).t
    marks = t[np.linspace(0, 8_000, 21).astype(int)]
    times = [(i, start, stop) for i, (start, stop) in enumerate(pairwise(marks))]
    nomniglot_tree(tmp_path / "ours", [OJIBWE])
    for root in (tmp_path / "theirs", tmp_path / "ours"):
        folder = root / "dvs_background" / OJIBWE / "character01"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "0701.aedat4").unlink(missing_ok=True)
        (folder / "0701.aedat4").symlink_to(recording)
        with open(folder / "0701.csv", "w", newline="") as file:
            csv.writer(file).writerows([("", "Start_Timestamps", "End_TimeStamps"), *times])
    theirs.convert_aedat4_dir_to_events_dir(str(tmp_path / "theirs"), True)
    data = load("nomniglot(event_size=250, resize=nearest, data_type=event)", tmp_path / "ours", step=3)
    cut, checked = tmp_path / "theirs/events_npy/background" / OJIBWE / "character01", 0
    for split in (data.train, data.test):
        for index in np.flatnonzero(split.targets == 0):
            file = cut / f"0701_{split.objects[index][-2:]}.npy"
            events = np.load(file, allow_pickle=True).item()
            assert np.array_equal(read_events(file).t, events["t"]) and len(events["t"]) == split.events[index]
            wanted = theirs.integrate_events_to_frames(events, 260, 346, 3, "event")[:, :, 4:254, 54:304]
            assert wanted.any() and np.array_equal(split[index][0], wanted)
            checked += 1
    assert checked == 20


@pytest.mark.parametrize("data_type", ["event", "frequency"])
@pytest.mark.parametrize("step", [1, 4])
def test_frames_as_braincog_makes_them(data_type, step):
    from braincog.datasets.NOmniglot.utils import integrate_events_to_frames

    from st_utils.data.events.files import sorted_events

    events = some_events(3_000, 346, 260, seed=step, span=1_000)
    events["x"], events["y"] = 60 + events["x"] // 8, 10 + events["y"] // 8  # several events at a pixel
    wanted = integrate_events_to_frames({key: value.copy() for key, value in events.items()}, 260, 346, step, data_type)
    wanted = torch.tensor(wanted[:, :, 4:254, 54:304]).float()
    wanted = torch.nn.functional.interpolate(wanted, (28, 28), mode="bilinear", align_corners=False)
    framing = DrawingFraming(step, 28, (346, 260), "time", "bilinear", data_type=data_type)
    frames = framing(sorted_events(**events))
    assert frames.max() > 0.1 and frames == pytest.approx(wanted.numpy(), abs=1e-3)  # theirs is float16


FAULTS = {
    "no table": (lambda folder: (folder / "0702.csv").unlink(), r"character02/ has 1 \.aedat4 and 0 \.csv files"),
    "short table": (
        lambda folder: _rewritten(folder / "0702.csv", "n,s,e\n0,5000,5800\n"),
        r"0702\.csv has 1 lines, not 20 with a start before the end",
    ),
    "words": (lambda folder: _rewritten(folder / "0702.csv", "n,s,e\n0,a,b\n"), r"0702\.csv is damaged, want a number"),
    "other times": (
        lambda folder: _rewritten(folder / "0702.csv", "n,s,e\n" + "".join(f"{i},{i},{i + 1}\n" for i in range(20))),
        r"0702\.aedat4 has no events from 0 to 1 us",
    ),
    "cut": (lambda folder: _rewritten(folder / "0702.aedat4", b"#!AER-DAT4.0\r\n"), r"0702\.aedat4 is .*: replace"),
    "no recording": (lambda folder: (folder / "0702.aedat4").unlink(), r"character02/ has 0 \.aedat4 and 1 \.csv"),
    "no character": (lambda folder: folder.rename(folder.parent / ".character02"), r"lacks Ojibwe.*/character02: "),
    "foreign": (lambda folder: folder.rename(folder.parent / "letter"), r"letter/ is in no folder <alphabet>/"),
    "nothing": (lambda folder: folder.parents[1].rename(folder.parents[2] / "x"), r"does not hold dvs_background/"),
}  # fmt: skip


def _rewritten(path: Path, content: str | bytes) -> None:
    path.unlink()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_one_line(copy, fault):
    change, message = FAULTS[fault]
    change(copy / "dvs_background" / OJIBWE / "character02")
    with pytest.raises(UserError, match=message) as caught:
        load("nomniglot", copy, step=2)
    assert "\n" not in str(caught.value)


def test_hidden_files_and_the_set_in_two_parts(copy, tree):
    folder = copy / "dvs_background" / OJIBWE / "character02"
    (folder / "._0702.aedat4").write_bytes(b"\0")
    (folder.parent / ".ipynb_checkpoints").mkdir()
    (copy / "dvs_background").rename(copy / "dvs_background_2")
    nomniglot_tree(copy / "more", [BLACKFOOT])
    (copy / "more" / "dvs_background").rename(copy / "dvs_background_1")
    data = load("nomniglot", copy, step=2)
    assert data.class_names[0] == f"{BLACKFOOT}/character01" and data.class_names[14] == f"{OJIBWE}/character01"
    images = create("dataset", "omniglot", data_dir=str(tree))
    with pytest.raises(UserError, match=r"34 classes and nomniglot 28: .*\(omniglot lacks 'Blackfoot.* and 13 others"):
        check_pair(images, data)


def test_arguments(copy):
    with pytest.raises(UserError, match="data_type=event needs resize=bilinear, corners or nearest"):
        load("nomniglot(data_type=event)", copy)
    data = load("nomniglot(data_type=frequency, resize=bilinear)", copy, step=1)
    assert data.train.frames.dtype == np.float32 and 0 < data.train.frames.max() <= 1
