"""A killed process leaves a pair of files of one step, whichever call of the system it was in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Each script runs in a process of its own, imports torch once, and kills its forks.
PROLOGUE = """
import os, random, sys, time, torch
from pathlib import Path
from safetensors.torch import load_file
from st_utils.training.checkpoint import load, load_newest, save_rotating
folder, links = Path(sys.argv[1]), True
def save(epoch, size=5):
    filled = torch.full((size,), float(epoch))
    save_rotating(folder, "last", {"epoch": epoch, "model": {"w": filled}, "optimizer": {0: {"exp_avg": filled}}})
def check(low, high):
    loaded, path, warnings = load_newest(folder, "last")
    epoch = loaded["epoch"]
    assert low <= epoch <= high, (loaded, low, high)
    for tensor in (loaded["model"]["w"], loaded["optimizer"][0]["exp_avg"], load_file(path)["w"]):
        assert torch.all(tensor == epoch), loaded
    assert not warnings or not links
    assert not links or load(folder / "last.prev.safetensors")["epoch"] <= epoch
    return epoch
"""
WITHOUT_LINKS = """
links = False
def link(*_):
    raise PermissionError(1, "no links")
os.link = link
"""
AT_EVERY_CALL = """
def dying(function):
    def call(*args, **options):
        global left
        left -= 1
        if left < 0 and function is os_write:
            os_write(args[0], args[1][: len(args[1]) // 2])
        if left < 0:
            os.kill(os.getpid(), 9)
        return function(*args, **options)
    return call
os_write = os.write
for moment in range(1000):
    [file.unlink() for file in folder.iterdir()]
    save(1), save(2)
    child = os.fork()
    if not child:
        left = moment
        for name in ("open", "write", "fsync", "close", "link", "replace"):
            setattr(os, name, dying(getattr(os, name)))
        save(3)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    check(2, 3)
    save(4)
    check(4, 4)
    if status == 0:
        break
print(moment)
"""
AT_ANY_MOMENT = """
save(0, size=50_000)
start = time.perf_counter()
save(0, size=50_000)
one = time.perf_counter() - start
reached = 0
for kill in range(20):
    child = os.fork()
    if not child:
        for epoch in range(reached + 1, 10**9):
            save(epoch, size=50_000)
    time.sleep(random.uniform(0.1, 5) * one)
    os.kill(child, 9)
    os.waitpid(child, 0)
    reached = check(reached, 10**9)
print(kill + 1)
"""
KILLS = {
    "every call": AT_EVERY_CALL,
    "every call without links": WITHOUT_LINKS + AT_EVERY_CALL,
    "any moment": AT_ANY_MOMENT,
}


@pytest.mark.parametrize("script", KILLS.values(), ids=KILLS)
def test_a_kill_leaves_a_sound_checkpoint(tmp_path, script):
    command = [sys.executable, "-c", PROLOGUE + script, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 10  # kills
