"""The cache of event frames: read once, whole or not there, in a place that can be written to."""

from __future__ import annotations

import pickle
import resource
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from st_utils.data.events.cache import CachedFrames, cached_frames, writable_cache
from st_utils.data.events.files import Events, read_events
from st_utils.data.events.frames import Framing, Recording
from st_utils.errors import UserError

from ..conftest import ROOT
from .writers import some_events, write


@pytest.fixture
def recordings(tmp_path) -> list[Recording]:
    found = []
    for i in range(6):
        path = tmp_path / "raw" / str(i % 2) / f"{i}.bin"
        write(path, **some_events(200 + i, seed=i))
        found.append(Recording(path, i % 2))
    return found


def build(
    recordings: list[Recording], cache: Path, framing: Framing | None = None, reads: list | None = None
) -> CachedFrames:
    def read(recording: Recording) -> Events:
        if reads is not None:
            reads.append(recording.path)
        return read_events(recording.path, (34, 34))

    return cached_frames("made-train", recordings, read, framing or Framing(4, 34, (34, 34)), cache)


def test_raw_files_are_read_once(recordings, tmp_path):
    reads = []
    first, second = (build(recordings, tmp_path, reads=reads) for _ in range(2))
    assert len(reads) == 6 and first.path == second.path
    for split in (first, second):
        assert split.targets.tolist() == [0, 1] * 3 and split.events.tolist() == [200 + i for i in range(6)]
        for i in range(6):
            frames, label = split[i]
            expected = Framing(4, 34, (34, 34))(read_events(recordings[i].path))
            assert np.array_equal(frames, expected) and label == i % 2 and frames.dtype == np.uint8
    assert [path.name for path in tmp_path.glob("*.h5")] == [first.path.name]
    with h5py.File(first.path) as file:  # an ordinary HDF5 file
        assert file["frames"].shape == (6, 4, 2, 34, 34) and int(file["frames"][0].sum()) == 200


def test_another_setting_or_file_is_another_cache(recordings, tmp_path):
    paths = {build(recordings, tmp_path).path}
    for framing in (
        Framing(5, 34, (34, 34)),
        Framing(4, 20, (34, 34)),
        Framing(4, 34, (34, 34), "time"),
        Framing(4, 34, (34, 34), resize="bilinear"),
    ):
        paths.add(build(recordings, tmp_path, framing).path)
    paths.add(build(recordings[:5], tmp_path).path)
    paths.add(build([*recordings[:5], Recording(recordings[5].path, 0)], tmp_path).path)
    write(recordings[0].path, **some_events(300))
    changed = build(recordings, tmp_path)
    assert changed.events[0] == 300 and len(paths | {changed.path}) == 8


def test_counts_above_a_byte_are_kept(tmp_path):
    path = tmp_path / "hot.bin"
    write(path, x=np.full(70_000, 3), y=np.full(70_000, 4), t=np.arange(70_000), p=np.ones(70_000, int))
    split = build([Recording(path, 0)], tmp_path, Framing(1, 34, (34, 34)))
    assert split[0][0].max() == 70_000 and split[0][0].dtype == np.int32
    split = build([Recording(path, 0)], tmp_path, Framing(100, 34, (34, 34)))
    assert split[0][0].max() == 700 and split[0][0].dtype == np.int16


def test_a_cache_travels_to_a_spawned_worker(recordings, tmp_path):
    split = build(recordings, tmp_path)
    text = pickle.dumps(split)
    assert len(text) < 2_000
    assert np.array_equal(pickle.loads(text)[3][0], split[3][0])


def nothing_unfinished(folder: Path) -> bool:
    return not list(folder.glob("*.h5")) and not list(folder.glob(".new-*"))


def test_a_damaged_file_leaves_no_cache(recordings, tmp_path):
    recordings[4].path.write_bytes(b"12345678")
    with pytest.raises(UserError, match=r"4\.bin is cut off"):
        build(recordings, tmp_path)
    assert nothing_unfinished(tmp_path)
    write(recordings[4].path, **some_events(50))
    assert build(recordings, tmp_path).events[4] == 50


def test_a_damaged_cache_is_made_anew(recordings, tmp_path, caplog):
    path = build(recordings, tmp_path).path
    for content in (path.read_bytes()[:3000], b"hello", b""):
        path.write_bytes(content)
        assert build(recordings, tmp_path).events.tolist() == [200 + i for i in range(6)]
        assert "is damaged" in caplog.text
        caplog.clear()


WRITER = """
import sys
sys.path.insert(0, {root!r})
from itertools import pairwise
from pathlib import Path
from st_utils.data.events.files import read_events
from st_utils.data.events.cache import cached_frames
from st_utils.data.events.frames import Framing, Recording
files = sorted(Path({raw!r}).glob("*/*.bin"))
def read(recording):
    print("reading", flush=True)
    if {wait}:
        sys.stdin.readline()
    return read_events(recording.path)
try:
    cached_frames("made", [Recording(path, 0) for path in files], read, Framing(4, {size}, (34, 34)), Path({cache!r}))
except ValueError as error:
    print(error)
"""


def writer(tmp_path: Path, size: int = 34, wait: bool = False) -> list[str]:
    cache = tmp_path / "cache"
    cache.mkdir(exist_ok=True)
    text = WRITER.format(root=str(ROOT), raw=str(tmp_path / "raw"), cache=str(cache), size=size, wait=wait)
    return [sys.executable, "-c", text]


def test_a_killed_process_leaves_nothing_that_looks_like_a_cache(recordings, tmp_path):
    process = subprocess.Popen(writer(tmp_path, wait=True), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    assert list((tmp_path / "cache").glob(".new-*"))
    process.kill()
    process.wait()
    assert not list((tmp_path / "cache").glob("*.h5"))
    build(recordings, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob(".new-*"))  # what was left is gone


def test_a_disk_without_room_is_one_line(recordings, tmp_path):
    """The room that a file may take is limited: the write fails as on a full disk."""

    def limit() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(writer(tmp_path, size=100), preexec_fn=limit, capture_output=True, text=True, timeout=600)
    last = done.stdout.strip().splitlines()[-1]
    assert "can't be written" in last and last.endswith("pass --cache-dir DIR with more room"), done
    assert done.returncode == 0 and nothing_unfinished(tmp_path / "cache")


def test_a_full_disk_is_one_line(recordings, tmp_path):
    (tmp_path / "cache").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path / "cache")]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        done = subprocess.run(writer(tmp_path), capture_output=True, text=True, timeout=600, check=False)
        assert "can't be written (No space left on device): pass --cache-dir DIR" in done.stdout, done
        assert done.returncode == 0 and nothing_unfinished(tmp_path / "cache")
    finally:
        subprocess.run(["umount", "-l", str(tmp_path / "cache")], check=True)


def test_two_processes_make_one_cache(recordings, tmp_path):
    both = [subprocess.Popen(writer(tmp_path), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    lines = [process.communicate(timeout=600)[0].split() for process in both]
    assert sorted(line.count("reading") for line in lines) == [0, 6]
    assert len(list((tmp_path / "cache").glob("*.h5"))) == 1


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert writable_cache(None, str(tmp_path)) == tmp_path / ".event_cache"
    assert writable_cache(str(tmp_path / "mine"), "elsewhere") == tmp_path / "mine"
    (tmp_path / "file").write_text("in the way")
    assert writable_cache(None, str(tmp_path / "file")) == tmp_path / "home" / "spiking-transformer-zoo"
    with pytest.raises(UserError, match="file/a can't be written: pass --cache-dir"):
        writable_cache(str(tmp_path / "file" / "a"), "elsewhere")


def test_without_a_cache_frames_are_integrated_each_time(recordings, tmp_path):
    reads = []
    read = lambda recording: reads.append(recording) or read_events(recording.path)  # noqa: E731
    assert writable_cache("none", str(tmp_path)) is None
    again = cached_frames("made", recordings, read, Framing(4, 34, (34, 34)), None)
    cached = build(recordings, tmp_path)
    for _ in range(2):
        for i in range(6):
            (frames, label), (expected, of_cache) = again[i], cached[i]
            assert np.array_equal(frames, expected) and label == of_cache
    assert len(reads) == 12 and again.targets.tolist() == cached.targets.tolist()
