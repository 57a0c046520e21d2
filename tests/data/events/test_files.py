import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from st_utils.data.events.files import parse_aedat4, read_events
from st_utils.errors import UserError

from ..conftest import ROOT
from .writers import aedat2_bytes, aedat3_bytes, aedat4_bytes, bin_bytes, dat_bytes, some_events, write

REAL = Path(os.environ.get("ZOO_DATA", ROOT.parent / "shared" / "data"))

# file: columns and rows of the extent, events, seconds, share of ON in percent; from the data's own README
KNOWN = {
    "event_samples/sample_nmnist.bin": (34, 34, 4_325, 0.3105, 49.6),
    "event_samples/sample_ncars.dat": (78, 42, 2_009, 0.1, 67.2),
    "event_samples/sample.aedat4": (320, 240, 111_954, 0.59, 49.1),
    "event_samples/sample_stmnist.mat": (10, 9, 2_346, 0.699, 68.2),
    "dvs128_objects/Lapiseira.aedat": (128, 128, 126_164, 18.5, 41.6),
    "dvs128_objects/Tesoura.aedat": (128, 128, 143_655, 18.8, 41.5),
    "dvs128_gesture/1.bs2": (128, 128, 63_471, 1.45, 50.7),
    "dvs128_gesture/2.bs2": (128, 128, 84_260, 1.45, 51.6),
    "dvs128_gesture/4.bs2": (128, 128, 151_879, 1.45, 51.2),
    "dvs128_gesture/5.bs2": (128, 128, 181_179, 1.45, 51.5),
    "dvs128_gesture/7.bs2": (128, 128, 159_617, 1.45, 48.6),
    "dvs128_gesture/8.bs2": (128, 128, 101_288, 1.45, 50.1),
    "dvs128_gesture/9.bs2": (128, 128, 141_773, 1.45, 49.7),
}


@pytest.mark.parametrize("name", KNOWN)
def test_recordings_have_the_events_that_are_known_of_them(name, tmp_path):
    """The real recording where it is at hand, else a small one of its format and extent."""
    width, height, count, seconds, on = KNOWN[name]
    path = REAL / name
    if not REAL.is_dir():
        count, seconds, path = 400, 0.3, tmp_path / name
        events = some_events(count, width, height)
        on = 100 * events["p"].mean()
        write(path, **events)
    events = read_events(path, (width, height))
    assert len(events) == count
    assert (events.x.max() + 1, events.y.max() + 1) == (width, height)
    assert (events.t[-1] - events.t[0]) / 1e6 == pytest.approx(seconds, rel=0.01)
    assert 100 * events.p.mean() == pytest.approx(on, abs=0.06) and set(np.unique(events.p)) == {0, 1}
    assert (np.diff(events.t) >= 0).all()


def test_every_real_recording_is_in_the_table():
    if REAL.is_dir():
        folders = ("event_samples", "dvs128_objects", "dvs128_gesture")
        assert {str(path.relative_to(REAL)) for folder in folders for path in (REAL / folder).iterdir()} == set(KNOWN)


def test_first_and_last_event_are_those_of_the_snntorch_tutorial(tmp_path):
    """N-MNIST's second training file, as the snnTorch tutorial 7 prints it."""
    path = next((REAL / "nmnist" / "Train").glob("*/00002.bin"), None)
    if path is None:
        path = tmp_path / "00002.bin"
        path.write_bytes(bin_bytes([10, 11], [30, 17], [937, 305_341], [1, 1]))
    events = read_events(path, (34, 34))
    columns = np.stack([events.x, events.y, events.t, events.p], 1)
    assert columns[0].tolist() == [10, 30, 937, 1] and columns[-1].tolist() == [11, 17, 305_341, 1]


def test_tonic_and_spikingjelly_read_the_same(tmp_path, spikingjelly_utils):
    from tonic.datasets import NMNIST
    from tonic.io import read_mnist_file

    write(tmp_path / "a.bin", **some_events())
    ours = read_events(tmp_path / "a.bin")
    for theirs in (
        read_mnist_file(str(tmp_path / "a.bin"), NMNIST.dtype),
        spikingjelly_utils.load_ATIS_bin(tmp_path / "a.bin"),
    ):
        assert all(np.array_equal(theirs[name], getattr(ours, name)) for name in "xytp")
    (tmp_path / "a.aedat").write_bytes(aedat3_bytes(**some_events(seed=1)))
    theirs, ours = spikingjelly_utils.load_aedat_v3(tmp_path / "a.aedat"), read_events(tmp_path / "a.aedat")
    assert all(np.array_equal(theirs[name], getattr(ours, name)) for name in "xytp")


@pytest.mark.parametrize("suffix", [".bin", ".bs2", ".aedat", ".aedat4", ".dat", ".mat", ".npz", ".npy"])
def test_what_is_written_is_read(suffix, tmp_path):
    side = 10 if suffix == ".mat" else 34
    events = some_events(width=side, height=side)
    if suffix == ".npy":
        events["t"] = events["t"] // 1000 * 1000  # its times are milliseconds
    write(tmp_path / f"1{suffix}", **events)
    read = read_events(tmp_path / f"1{suffix}", (side, side))
    assert all(np.array_equal(getattr(read, name), events[name]) for name in "xytp")


@pytest.mark.parametrize("compression", [0, 1, 3], ids=["none", "lz4", "zstd"])
def test_aedat4_compressions(compression):
    events = some_events(50)
    assert np.array_equal(parse_aedat4(aedat4_bytes(**events, compression=compression)).t, events["t"])


def test_es_imagenet_has_rows_first_and_both_signs(tmp_path):
    np.savez(tmp_path / "a.npz", pos=np.array([[5, 7, 2]]), neg=np.array([[1, 2, 8], [3, 4, 1]]))
    events = read_events(tmp_path / "a.npz")
    columns = np.stack([events.x, events.y, events.t, events.p], 1)
    assert columns.tolist() == [[4, 3, 1, 0], [7, 5, 2, 1], [2, 1, 8, 0]]


def test_overflow_events_stand_for_time_that_passed(tmp_path):
    (tmp_path / "a.bin").write_bytes(bin_bytes([1, 0, 2], [1, 240, 2], [100, 0, 5], [1, 0, 0]))
    events = read_events(tmp_path / "a.bin", (34, 34))
    assert events.t.tolist() == [100, 2**13 + 5] and events.x.tolist() == [1, 2]


def test_events_out_of_order_are_sorted(tmp_path):
    (tmp_path / "a.bin").write_bytes(bin_bytes([1, 2, 3], [0, 0, 0], [30, 10, 20], [0, 1, 1]))
    events = read_events(tmp_path / "a.bin")
    assert events.t.tolist() == [10, 20, 30] and events.x.tolist() == [2, 3, 1]


def mat_bytes(x, y, t, p, name: str = "ts") -> bytes:
    file = io.BytesIO()
    savemat(file, {"x": x, "y": y, name: t, "p": 2 * p - 1}, do_compression=True)
    return file.getvalue()


def npy_bytes(content: object) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array(content, dtype=object) if isinstance(content, list) else content)
    return file.getvalue()


def npy_bytes_of_numpy_1(content: object) -> bytes:
    """As numpy 1 saves an object: in protocol 3, and with the former name of its module."""
    data, content = npy_bytes(content), np.array(content, dtype=object)
    pickled = pickle.dumps(content, protocol=3)
    return data[: data.index(b"\n") + 1] + pickled.replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray")


def _flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


FAULTS = {
    "cut .bin": (".bin", lambda e: bin_bytes(**e)[:-2], "cut off: 998 bytes of 5-byte events"),
    "empty .bin": (".bin", lambda e: b"", "has no events"),
    "text as .bin": (".bin", lambda e: b"hello" * 20, r"event at \(104, 101\), outside of a sensor of 34 x 34"),
    "cut .aedat": (".aedat", lambda e: aedat2_bytes(**e)[:-3], "cut off"),
    "text as .aedat": (".aedat", lambda e: b"hello", "no AEDAT file"),
    "other chip": (".aedat", lambda e: aedat2_bytes(**e, header="# AEChip: Davis346\n"), "Davis346, not of a DVS128"),
    "old .aedat": (".aedat", lambda e: b"#!AER-DAT1.0\n", r"AEDAT 1: known are 2\.0"),
    "cut aedat 3": (".aedat", lambda e: aedat3_bytes(**e)[:-3], "cut off in a packet"),
    "cut aedat 3 header": (".aedat", lambda e: aedat3_bytes(**e)[:20], "cut off in its header"),
    "cut .dat": (".dat", lambda e: dat_bytes(**e)[:-1], "cut off"),
    "text as .dat": (".dat", lambda e: b"hello", "no DAT file of version 2"),
    "cut .aedat4": (".aedat4", lambda e: aedat4_bytes(**e)[:-3], "cut off in a packet"),
    "bad lz4": (".aedat4", lambda e: aedat4_bytes(**e)[:-30] + b"\x00" * 30, "damaged in a packet"),
    "text as .aedat4": (".aedat4", lambda e: b"hello", "no AEDAT 4 file"),
    "text as .mat": (".mat", lambda e: b"hello" * 50, "no .mat file with x, y, ts and p, or with a sp"),
    "cut .mat": (".mat", lambda e: mat_bytes(**e)[:-9], "no .mat file with"),
    "flipped .mat": (".mat", lambda e: _flipped(mat_bytes(**e), 300), "no .mat file with"),
    "uneven .mat": (".mat", lambda e: mat_bytes(**{**e, "t": e["t"][1:]}), "columns x, y, t and p differ in length"),
    "other .mat": (".mat", lambda e: mat_bytes(**e, name="t"), "no .mat file with"),
    "text as .npz": (".npz", lambda e: b"hello", "no complete .npz file"),
    "pickle as .npy": (".npy", lambda e: b"\x80\x04K\x01.", "no complete .npy file"),
    "cut dictionary": (".npy", lambda e: npy_bytes(e)[:-30], "no complete .npy file"),
    "uneven dictionary": (".npy", lambda e: npy_bytes({**e, "t": e["t"][1:]}), "columns x, y, t and p differ in len"),
    "no times": (".npy", lambda e: npy_bytes({"x": e["x"]}), "no complete .npy file"),
    "words": (".npy", lambda e: npy_bytes({**e, "t": np.array(["a"] * 200)}), "no plain array of numbers"),
    "objects": (".npy", lambda e: npy_bytes({**e, "t": np.array([e] * 200)}), "no plain array of numbers"),
    "a list": (".npy", lambda e: npy_bytes([1, 2]), "no complete .npy file"),
    "unknown": (".csv", lambda e: b"1,2", "is no event file: known are .bin"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_or_foreign_file_is_one_line_that_names_it(fault, tmp_path):
    suffix, content, message = FAULTS[fault]
    path = tmp_path / f"1{suffix}"
    path.write_bytes(content(some_events()))
    with pytest.raises(UserError, match=message) as caught:
        read_events(path, (34, 34))
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".npz", ".mat", ".npy", ".aedat4", ".aedat", ".dat"])
def test_a_file_cut_anywhere_never_ends_in_a_traceback(suffix, tmp_path):
    write(tmp_path / f"1{suffix}", **some_events(40, 10, 10))
    whole = (tmp_path / f"1{suffix}").read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        (tmp_path / f"1{suffix}").write_bytes(whole[:length])
        try:
            found = read_events(tmp_path / f"1{suffix}", (10, 10))
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert len(found) < 40 or suffix == ".npz" or suffix == ".mat"


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"gone\.bin is missing"):
        read_events(tmp_path / "gone.bin")


def test_a_header_that_points_nowhere(tmp_path):
    path = tmp_path / "1.aedat4"
    path.write_bytes(b"#!AER-DAT4.0\r\n" + struct.pack("<i", 8) + struct.pack("<I4s", 2**31, b"IOHE"))
    with pytest.raises(UserError, match=r"1\.aedat4 is"):
        read_events(path)


@pytest.mark.parametrize("save", [npy_bytes, npy_bytes_of_numpy_1])
def test_a_dictionary_as_braincog_stores_it(tmp_path, save):
    events = some_events()
    data = save({**events, "p": events["p"] > 0})
    assert (b"numpy.core.multiarray" in data) == (save is npy_bytes_of_numpy_1)
    (tmp_path / "a.npy").write_bytes(data)
    found = read_events(tmp_path / "a.npy", (34, 34))
    assert all(np.array_equal(getattr(found, name), events[name]) for name in "xytp")


def test_a_dictionary_runs_no_code(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was here"),)

    (tmp_path / "a.npy").write_bytes(npy_bytes({**some_events(), "more": Hostile()}))
    with pytest.raises(UserError, match=r"a\.npy is no complete \.npy file .*names posix\.mkdir, not only arrays"):
        read_events(tmp_path / "a.npy")
    assert not (tmp_path / "was here").exists()


def test_cepdvs_mat(tmp_path):
    events = some_events()
    (tmp_path / "1.mat").write_bytes(mat_bytes(**events))
    found = read_events(tmp_path / "1.mat", (34, 34))
    assert all(np.array_equal(getattr(found, name), events[name]) for name in "xytp")
