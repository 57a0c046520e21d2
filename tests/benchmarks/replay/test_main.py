"""The replay of two trees: a real copy of this checkout, changed in one place, is told from the original."""

import re
import subprocess
from pathlib import Path

import pytest

from benchmarks.replay import __main__ as replay
from benchmarks.replay.runs import listed
from st_utils.errors import UserError


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", folder, *who, *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A repository of its own with this checkout's files, committed."""
    place = replay.present_tree(replay.ROOT, tmp_path / "checkout")
    git(place, "init", "--quiet")
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--message", "as it is")
    return place


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file} has changed: choose another line"
    file.write_text(text.replace(old, new))


def told(text: str) -> dict[str, str]:
    """What is said of each run, by its name."""
    names = sorted((run.name for run in listed()), key=len, reverse=True)
    found = {}
    for line in text.splitlines():
        word, _, rest = line.partition("  ")
        if word in ("same", "different", "failed"):
            name = next(name for name in names if rest.strip().startswith(name))
            found[name] = f"{word}: {rest.strip()[len(name) :].strip()}".strip()
    return found


def test_an_untouched_checkout_is_the_same(checkout, capsys):
    assert replay.main(["HEAD", "--only", "node if"], checkout) == 0
    text = capsys.readouterr().out
    assert told(text) == {"node if": "same:"} and "1 of 1 runs are the same" in text


def test_a_sum_in_another_order_and_another_default_are_found_and_their_runs_named(checkout, capsys):
    change(checkout / "st_utils/node/klif.py", "(self.k.to(x.dtype) * (v + change))", "(self.k * v + self.k * change)")
    change(checkout / "st_utils/node/ilif.py", "max_spikes: int = 4,", "max_spikes: int = 5,")
    assert replay.main(["HEAD", "--only", "node if|node klif|node ilif"], checkout) == 1
    text = capsys.readouterr().out
    found = told(text)
    assert found["node if"] == "same:"
    # in the loss of a step, or where a processor rounds that alike, in a test's firing rate; in the weights always
    assert re.match(r"different: (step \d+: loss|epoch \d+: \w+) .* tensors, first ", found["node klif"])
    assert found["node ilif"].startswith("different: spec full_spec ") and "max_spikes=5" in found["node ilif"]
    assert "1 of 3 runs are the same" in text
    assert len(git(checkout, "worktree", "list").splitlines()) == 1  # the added work tree is gone


def test_a_tree_whose_packages_are_imported_from_elsewhere_is_refused(checkout, tmp_path, monkeypatch):
    """Without packages of its own, installed ones would stand in for them, and be compared with themselves."""
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "main.py").write_text((checkout / "main.py").read_text())
    monkeypatch.setitem(replay.ENVIRONMENT, "PYTHONPATH", str(checkout))  # as if installed
    (run,) = listed("node if")
    with replay.Side("base", bare, [run], tmp_path) as side, pytest.raises(UserError, match="^refused: registry.* was"):
        side.wait(run)
    assert not (tmp_path / "runs-base" / "found.jsonl").exists()


def test_the_present_tree_has_new_files_and_none_that_were_deleted(checkout, tmp_path):
    (checkout / "zoo/new.py").write_text("NEW = 1\n")
    (checkout / "zoo/csnn.py").unlink()
    (checkout / ".venv").mkdir()
    (checkout / ".venv/ignored.py").write_text("")
    change(checkout / "main.py", "def answer(", "def answer_all(")
    copied = replay.present_tree(checkout, tmp_path / "copied")
    assert (copied / "zoo/new.py").read_text() == "NEW = 1\n"
    assert not (copied / "zoo/csnn.py").exists() and not (copied / ".venv").exists()
    assert "def answer_all(" in (copied / "main.py").read_text()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["no-such-commit"], "no-such-commit is no commit of"),
        (["HEAD", "--only", "nothing like this"], "no run's name holds 'nothing like this'"),
        ([], "name the commit to compare with: make replay BASE=main"),
    ],
)
def test_what_cannot_be_compared_is_one_line(tmp_path, words, line, capsys):
    assert replay.main(words, tmp_path) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {line}") and error.count("\n") == 1
