"""DVS128 Gesture, N-CARS, ES-ImageNet and the user's own folder, from small files in their layouts."""

from __future__ import annotations

import numpy as np
import pytest

from registry import create
from st_utils.errors import UserError

from .loading import load
from .writers import aedat3_bytes, some_events, write


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
