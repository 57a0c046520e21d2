"""docs/all-of-zoo.md: every block runs, every path exists, and its table of kinds is the registry's."""

from __future__ import annotations

import glob
import logging
import re
import shlex
from pathlib import Path

import pytest

import main
import registry
from benchmarks.leaderboard import __main__ as leaderboard
from tests.examples import run

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "all-of-zoo.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|sh|yaml)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PROGRAMS = {"main.py": main.main, "-m benchmarks.leaderboard": leaderboard.main}


@pytest.fixture
def in_a_folder(tmp_path, monkeypatch):
    """The working folder is empty, and what the page registers is gone afterwards."""
    monkeypatch.chdir(tmp_path)
    before, loaded = registry.parts.state(), dict(registry._plugins.loaded)
    handlers = logging.root.handlers[:]
    yield tmp_path
    logging.root.handlers[:] = handlers
    registry.parts.restore(before)
    registry._plugins.loaded = loaded


def command(line: str) -> int:
    """Run `python main.py ...` or `python -m benchmarks.leaderboard ...` in this process; its exit status."""
    words = line.removeprefix("python ")
    program = next(name for name in PROGRAMS if words.startswith(name))
    arguments = shlex.split(words.removeprefix(program))
    # what a shell does with runs/spikformer-*; not with the quoted pattern of --list, which matches no file
    expanded = [found for word in arguments for found in (glob.glob(word) if "*" in word else []) or [word]]
    return PROGRAMS[program](expanded)


def test_every_block_runs(in_a_folder):
    names: dict = {}
    compared = commands = 0
    for kind, text in BLOCKS:
        if file := re.match(r"# (\S+\.(?:py|yml))\n", text):
            (in_a_folder / file[1]).write_text(text, encoding="utf-8")
        elif kind == "python":
            compared += run(text, names)
        else:
            assert kind == "sh"
            for line in text.splitlines():
                assert command(line) == 0, line
                commands += 1
    assert compared >= 20
    assert commands >= 10
    assert len(list(in_a_folder.glob("runs/*/run.png"))) == 2
    assert (in_a_folder / "leaderboard" / "index.html").exists()


def test_every_path_exists():
    written = {file for _, text in BLOCKS for file in re.findall(r"^# (\S+\.(?:py|yml))$", text, re.MULTILINE)}
    paths = set(re.findall(r"`((?:[\w.-]+/)+[\w.-]*|[\w-]+\.md)`", PAGE))
    assert len(paths) >= 30
    assert {path for path in paths - written if not (ROOT / path).exists()} == set()


def test_the_table_of_kinds_is_the_registrys():
    rows = dict(re.findall(r"^\| `(\w+)` \| (?:`([\w, ]+)`)? ?\|", PAGE, re.MULTILINE))
    assert rows.keys() == registry.KINDS.keys()
    assert {kind: tuple(filter(None, offered.split(", "))) for kind, offered in rows.items()} == registry.KINDS
