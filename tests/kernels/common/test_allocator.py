"""The C library's allocator keeps freed memory: the system maps no page again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from st_utils.kernels.common import allocator

FAULTS = """
import os, resource, sys
import torch
if sys.argv[1] == "keep":
    from st_utils.kernels.common.allocator import keep_freed_memory
    assert keep_freed_memory()
if sys.argv[1] in ("use", "refuse"):
    if sys.argv[1] == "refuse":
        os.environ["ZOO_KEEP_FREED_MEMORY"] = "0"
    import zoo
    zoo.create_model("csnn", img_size=28)(torch.rand(1, 1, 28, 28))
def step():
    for mib in (3, 40, 100):
        torch.ones(mib << 18)
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_blocks_are_used_again():
    assert faults("keep") * 20 < faults("leave")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_model_that_runs_makes_it_so_unless_the_environment_refuses():
    assert faults("use") * 20 < faults("refuse")


@pytest.mark.parametrize(("system", "libc"), [("Linux", ""), ("Darwin", ""), ("Windows", "")])
def test_other_c_libraries_are_left_alone(monkeypatch, system, libc):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    assert allocator.keep_freed_memory() is False
