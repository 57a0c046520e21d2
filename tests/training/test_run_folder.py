"""A run's folder: its name, finding it again, its files after kills and full disks, two processes at once."""

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from st_utils.errors import UserError
from st_utils.files import write_atomic
from st_utils.training import run_folder
from st_utils.training.checkpoint import save_rotating
from st_utils.training.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
IDENTITY = {"model": "spikformer(depth=2)", "dataset": "digits", "seed": 42, "lr": 1e-5, "betas": (0.9, 0.99)}


@contextlib.contextmanager
def refused(*parts):
    with pytest.raises(UserError) as error:
        yield
    assert "\n" not in str(error.value) and all(str(part) in str(error.value) for part in parts), error.value


def made(output, identity=IDENTITY, hint=None):
    with RunFolder.create(output, identity, hint) as folder:
        return folder


def in_process(*lines):
    code = "\n".join(["import os, sys, time", "from st_utils.training.run_folder import RunFolder", *lines])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)


def test_names_are_deterministic_and_numbered(tmp_path):
    first, other = made(tmp_path / "a"), made(tmp_path / "a", {**IDENTITY, "seed": 7})
    name = first.path.name
    assert name == made(tmp_path / "b").path.name and name.startswith("spikformer-depth-2-digits-42-")
    assert len(name.rpartition("-")[2]) == 8 and other.path.name != name
    assert [made(tmp_path / "a").path.name for _ in range(2)] == [f"{name}-2", f"{name}-3"]
    hinted = made(tmp_path / "new" / "deep", hint="../QKFormer (é)/ " + "x" * 300).path
    assert hinted.parent == tmp_path / "new" / "deep" and hinted.name.startswith("qkformer-x")
    assert len(hinted.name) < 100
    assert made(tmp_path, {"seed": 1}, hint="...").path.name.startswith("run-")
    assert first.last == first.path / "last.safetensors" and first.best == first.path / "best.safetensors"


def test_find_goes_by_the_recorded_identity(tmp_path, caplog):
    assert RunFolder.find(tmp_path / "absent", IDENTITY) is None and RunFolder.find(tmp_path, IDENTITY) is None
    folders = [made(tmp_path) for _ in range(11)]
    made(tmp_path, {**IDENTITY, "lr": 2e-5}).path.rename(folders[0].path.with_name("elsewhere"))
    found = RunFolder.find(tmp_path, dict(reversed(IDENTITY.items())))
    assert found.path == folders[-1].path and found.identity == {**IDENTITY, "betas": [0.9, 0.99]}
    found.path.rename(tmp_path / "renamed")
    (tmp_path / "renamed").touch()
    assert RunFolder.find(tmp_path, IDENTITY).path == tmp_path / "renamed"
    assert RunFolder.find(tmp_path, {**IDENTITY, "seed": 42.0}) is None
    assert found.differences({**IDENTITY, "seed": 42.0, "lr": math.nan, "new": None}) == ["seed", "lr"]
    (tmp_path / "renamed" / "args.yml").write_text("{broken")
    (tmp_path / "stray").touch()
    assert RunFolder.find(tmp_path, IDENTITY).path == folders[-2].path
    assert len(caplog.messages) == 1 and "renamed" in caplog.text


@pytest.mark.parametrize(
    "content", [None, "", "[1]", "{", "a: 1", "identity: {}", "{created: 1, identity: x}", b"\xff\x00"]
)
def test_open_refuses_what_is_no_run(tmp_path, content):
    if content is not None:
        (tmp_path / "args.yml").write_bytes(content.encode() if isinstance(content, str) else content)
    with refused(tmp_path, "not a run's folder"):
        RunFolder.open(tmp_path)


def test_arguments_come_back(tmp_path):
    folder = made(tmp_path)
    args = {"model": "qkformer(embed_dim=256)", "lr": 1e-4, "clip": math.inf, "on": "yes"}
    folder.write_args({**args, "path": Path("data"), "sizes": (1, 2), "scale": np.float64(0.5), "é": {1: None}})
    recorded = yaml.safe_load((folder.path / "args.yml").read_bytes())
    expected = {**args, "path": "data", "sizes": [1, 2], "scale": 0.5, "é": {"1": None}}
    assert {key: recorded[key] for key in expected} == expected
    assert RunFolder.find(tmp_path, IDENTITY).path == folder.path
    with pytest.raises(TypeError):
        folder.write_args({"x": object()})
    assert yaml.safe_load((folder.path / "args.yml").read_bytes()) == recorded


def test_metrics_survive_kills_and_resuming(tmp_path, caplog):
    folder = made(tmp_path)
    path = folder.path / "metrics.jsonl"
    assert folder.read_metrics() == []
    folder.truncate_metrics(3)
    assert not path.exists()
    for epoch in range(5):
        folder.append_metrics({"epoch": epoch, "loss": 0.1 * epoch, "top1": torch.tensor(0.5)})
    assert [json.loads(line) for line in path.read_text().splitlines()] == folder.read_metrics()
    folder.truncate_metrics(2)
    assert [row["epoch"] for row in folder.read_metrics()] == [0, 1, 2]
    assert folder.read_metrics()[2] == {"epoch": 2, "loss": 0.2, "top1": 0.5} and not caplog.messages
    with path.open("ab") as file:
        file.write(b'{"epoch": 3, "lo')
    assert len(folder.read_metrics()) == 3 and "line 4" in caplog.text
    folder.append_metrics({"epoch": 3, "loss": math.nan})
    caplog.clear()
    assert folder.read_metrics()[3] == {"epoch": 3, "loss": None} and not caplog.messages
    folder.append_metrics({"epoch": 2})  # a resumed run that did not truncate
    assert [row["epoch"] for row in folder.read_metrics()] == [0, 1, 2]
    folder.truncate_metrics(-1)
    assert folder.read_metrics() == [] and path.exists()
    for row in ({"loss": 1}, {"epoch": "1"}, {"epoch": 1, "x": {2}}):
        with pytest.raises((KeyError, TypeError)):
            folder.append_metrics(row)
    path.write_bytes(b'{"epoch": 0, "loss": NaN}\n\0\0\0\n[]\n{"epoch": true}\n{"epoch": 1}')
    assert folder.read_metrics() == [{"epoch": 0, "loss": None}, {"epoch": 1}]
    folder.append_metrics({"epoch": 2})
    assert path.read_text() == '{"epoch": 0, "loss": null}\n{"epoch": 1}\n{"epoch": 2}\n'


def test_a_summary_finishes_the_run(tmp_path):
    folder = made(tmp_path)
    path = folder.path / "summary.json"
    for content in (None, "", '{"top1": 9', "[]", "\udcff".encode(errors="surrogateescape")):
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        assert not folder.finished and folder.read_summary() is None
    folder.write_summary({"top1": np.float32(0.5), "firing_rate": math.nan, "seed": 42})
    assert folder.finished and folder.read_summary() == {"top1": 0.5, "firing_rate": None, "seed": 42}
    assert "NaN" not in path.read_text()


def test_a_second_user_of_the_folder_is_refused(tmp_path):
    with RunFolder.create(tmp_path, IDENTITY) as folder:
        second = RunFolder.find(tmp_path, IDENTITY)
        for write in (
            second.lock,
            lambda: second.append_metrics({"epoch": 0}),
            lambda: second.write_args({}),
        ):
            with refused(folder.path, "in use"):
                write()
        assert second.read_metrics() == [] and not second.finished
        other = f"try: RunFolder.open({str(folder.path)!r}).lock()\nexcept ValueError as error: print(error)"
        assert "in use" in in_process(other).communicate()[0]
        folder.lock()
    with second:
        second.append_metrics({"epoch": 0})


def test_a_killed_process_frees_the_folder_and_its_leftovers_go(tmp_path):
    worker = "if not os.fork(): print(os.getpid(), flush=True); time.sleep(60)"  # outlives its parent
    create = f"folder = RunFolder.create({str(tmp_path)!r}, dict(seed=1))"
    holder = in_process(create, worker, "time.sleep(60)")
    orphan = int(holder.stdout.readline())
    folder = RunFolder.find(tmp_path, {"seed": 1})
    (folder.path / ".last.safetensors.1-2.tmp").touch()
    (folder.path / "notes.tmp").touch()
    with pytest.raises(UserError, match="in use"):
        folder.lock()
    holder.kill()
    holder.wait()
    try:
        with folder:
            assert sorted(os.listdir(folder.path)) == [".lock", "args.yml", "notes.tmp"]
    finally:
        os.kill(orphan, 9)
        holder.stdout.close()


def test_a_file_system_without_locks_is_used_with_a_warning(tmp_path, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(run_folder.fcntl, "flock", unsupported)
    made(tmp_path).write_summary({})
    assert "can't be locked" in caplog.text


def test_many_processes_at_once_get_folders_of_their_own(tmp_path):
    create = f"os.write(1, RunFolder.create({str(tmp_path)!r}, dict(seed=1)).path.name.encode() + b' ')"
    script = f"for _ in range(8):\n if not os.fork():\n  {create}\n  os._exit(0)\nfor _ in range(8): os.wait()"
    names = in_process(script).communicate()[0].split()
    assert len(set(names)) == 8 and sorted(names) == sorted(os.listdir(tmp_path))


@pytest.fixture
def full_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_keeps_what_was_there(full_disk):
    folder = made(full_disk)
    folder.write_args({"a": 1})
    folder.append_metrics({"epoch": 0})
    folder.write_summary({"top1": 1})
    for epoch in (1, 2):
        save_rotating(folder.path, "last", {"epoch": epoch})
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    with open(full_disk / "filler", "wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
        while True:
            filler.write(b"0" * 4096)
    writes = {
        "args.yml": lambda: folder.write_args({"a": 2}),
        "metrics.jsonl": lambda: folder.append_metrics({"epoch": 1}),
        "summary.json": lambda: folder.write_summary({"top1": 2}),
        "last.safetensors": lambda: save_rotating(folder.path, "last", {"epoch": 3, "w": torch.zeros(3000)}),
    }
    for name, write in writes.items():
        with refused(folder.path / name, "No space left"):
            write()
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before
    with pytest.raises(UserError, match="No space left"):
        RunFolder.create(full_disk, IDENTITY)
    assert sorted(os.listdir(full_disk)) == sorted(["filler", folder.path.name])
    os.truncate(full_disk / "filler", (full_disk / "filler").stat().st_size - 4096)  # room for the weights alone
    with refused(folder.path / "last.state.safetensors", "No space left"):
        save_rotating(folder.path, "last", {"epoch": 3, "w": torch.zeros(3000)})
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before
    (full_disk / "filler").unlink()
    save_rotating(folder.path, "last", {"epoch": 3})
    folder.append_metrics({"epoch": 1})


def test_an_output_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with refused(output):
            RunFolder.create(output, IDENTITY)
        with refused(output):
            RunFolder.find(output, IDENTITY)
    folder = made(tmp_path / "runs")
    shutil.rmtree(folder.path)
    with refused(folder.path):
        folder.append_metrics({"epoch": 0})


def test_a_new_file_has_the_usual_rights(tmp_path):
    mask = os.umask(0)
    os.umask(mask)
    write_atomic(tmp_path / "file", [b"a" * 100_000, b"", memoryview(b"b")])
    assert (tmp_path / "file").read_bytes() == b"a" * 100_000 + b"b"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "taken").mkdir()
    for path in (tmp_path / "file" / "c", tmp_path / "absent" / "c", tmp_path / "taken"):
        with refused(path):
            write_atomic(path, [b""])
    assert sorted(os.listdir(tmp_path)) == ["file", "taken"]
    tmp_path.chmod(0o555)
    if not os.getuid():
        os.seteuid(65534)  # nobody: permissions mean nothing to root
    try:
        with pytest.raises(UserError, match="Permission denied"):
            write_atomic(tmp_path / "c", [b""])
    finally:
        os.seteuid(os.getuid())
        tmp_path.chmod(0o755)
