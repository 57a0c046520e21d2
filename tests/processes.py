"""Commands in processes of their own, forked off one that has imported everything and made one short run.

    process = started("main.py", "--epochs", "3", told=tmp_path / "told")  # what it prints is in that file
    process.kill()
    called(function, folder, RANK="0")  # a function of a module, with environment variables of its own

A new Python imports torch and this project for six seconds before it does anything; these are ready at once. Each is a
process as any other: it can be killed, holds its own locks and ends with its own status.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIRST_RUN = [
    "--model", "spikformer(embed_dim=16, depth=1, num_heads=2, mlp_ratio=1.0)", "--step", "2", "--img-size", "8",
    "--recipe", "none", "--epochs", "1", "--train-images", "40", "--test-images", "20", "--batch-size", "20",
    "--device", "cpu",
]  # fmt: skip
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.ready"])


def started(program: str, *words: str, told: Path) -> BaseProcess:
    """Start `main.py` or `benchmarks.leaderboard` with these words; what it prints is written to the file `told`."""
    process = _context.Process(target=_run, args=(program, words, told))
    process.start()
    return process


def called(work: Callable[..., object], *arguments: object, **environment: str) -> BaseProcess:
    """Start a function of a module, with these arguments and environment variables."""
    process = _context.Process(target=_call, args=(work, arguments, environment))
    process.start()
    return process


def finished(program: str, *words: str, told: Path) -> tuple[int, str]:
    """Run a command to its end; its exit status and what it printed."""
    process = started(program, *words, told=told)
    process.join()
    return process.exitcode, told.read_text()


def programs() -> dict[str, Callable[[list[str]], int]]:
    """The commands by name; importing them takes seconds."""
    import main
    from benchmarks.leaderboard import __main__ as leaderboard

    return {"main.py": main.main, "benchmarks.leaderboard": leaderboard.main}


def _run(program: str, words: tuple[str, ...], told: Path) -> None:
    os.chdir(ROOT)
    with told.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(programs()[program](list(words)))


def _call(work: Callable[..., object], arguments: tuple[object, ...], environment: dict[str, str]) -> None:
    os.environ.update(environment)
    work(*arguments)


def be_ready() -> None:
    """Import all that a run needs, and make one, in silence."""
    os.environ.update(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")  # without threads, which a fork would lose
    import torch

    torch.set_num_threads(1)
    said, nowhere = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY)
    with tempfile.TemporaryDirectory() as output:
        for number in (1, 2):
            os.dup2(nowhere, number)
        status = programs()["main.py"]([*FIRST_RUN, "--output", output])
        for number, old in zip((1, 2), said, strict=True):
            os.dup2(old, number)
    assert status == 0
