"""Does this checkout compute the same as another commit? Short training runs on both, compared bit for bit on the CPU.

    python -m benchmarks.replay BASE [--only WORDS] [--list]       # or: make replay BASE=main ONLY='lif|sdt'

The checkout is compared as it is, with its uncommitted and new files. Compared are: settings and full specs, parameter
counts, the loss of every step and the metrics of every epoch, every tensor of the last checkpoint (read by its own
version's code), the model with its norms folded, and the operations and firing rates of each layer. Each run gets one
line: `same`, or the first difference of each kind. Exit status 0: all runs are the same; 1: one is not; 2: nothing
could be compared. No result file is written.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.replay.compare import Verdict, compare
from benchmarks.replay.data import write_data
from benchmarks.replay.runs import COMMON, DATA, Run, listed
from benchmarks.replay.tree import REFUSED
from st_utils.errors import UserError

ROOT = Path(__file__).parents[2]
TREE = Path(__file__).with_name("tree.py")
# One thread: sums then have one order. No GPU: nothing is compared there.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": ""}


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    """Run the command line on the checkout `root`; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", nargs="?", help="commit to compare the present checkout with")
    parser.add_argument("--only", default="", metavar="WORDS", help="runs whose names hold one of WORDS, joined by |")
    parser.add_argument("--list", action="store_true", help="show the runs, and stop")
    args = parser.parse_args(argv)
    try:
        runs = listed(args.only)
        if not runs:
            raise UserError(f"no run's name holds {args.only!r}: see --list")
        if args.list:
            print("\n".join(f"{run.name:<40} {' '.join(run.arguments)}".replace(DATA, "DATA") for run in runs))
            return 0
        if not args.base:
            raise UserError("name the commit to compare with: make replay BASE=main")
        with contextlib.ExitStack() as stack:
            stack.enter_context(stopped_by_sigterm())
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="replay-")))
            base = stack.enter_context(base_tree(root, args.base, work / "base"))
            return replay(base, present_tree(root, work / "here"), runs, work)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


@contextlib.contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Make SIGTERM end the work as Ctrl-C does: work trees and folders are removed."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def base_tree(root: Path, commit: str, place: Path) -> Iterator[Path]:
    """Make a work tree of the commit, and remove it after the block. Raises UserError."""
    name = f"{commit}^{{commit}}"
    found = git(root, "rev-parse", "--verify", "--quiet", name, refusal=f"{commit} is no commit of {root}").strip()
    git(root, "worktree", "add", "--detach", "--quiet", str(place), found, refusal="no work tree can be added")
    try:
        yield place
    finally:
        git(root, "worktree", "remove", "--force", str(place), refusal=f"{place} can't be removed")


def present_tree(root: Path, place: Path) -> Path:
    """Copy the checkout's files, new ones too, so that edits during the runs change nothing."""
    names = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", refusal=f"{root} is no checkout")
    for name in filter(None, names.split("\0")):
        if (root / name).is_file():  # else it was deleted
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, place / name)
    return place


def git(root: Path, *words: str, refusal: str) -> str:
    """The output of a git command in a checkout. Raises UserError that begins with `refusal`."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, env=settings, check=False)
    if done.returncode:
        reason = f" ({' '.join(done.stderr.split())})" if done.stderr.strip() else ""
        raise UserError(f"{refusal}{reason}")
    return done.stdout


def replay(base: Path, here: Path, runs: list[Run], work: Path) -> int:
    """Make the runs in both trees at once, and print a verdict on each; return the exit status. Raises UserError."""
    start = time.monotonic()
    width = max(len(run.name) for run in runs)
    verdicts: list[Verdict] = []
    with Side("base", base, runs, work) as old, Side("here", here, runs, work) as new:
        for run in runs:
            verdicts.append(compare(old.wait(run), new.wait(run)))
            word, reason, _ = verdicts[-1]
            print(f"{word:<9}  {run.name:<{width}}  {reason}".rstrip(), flush=True)
        old.end()
        new.end()
    for line in sorted(frozenset().union(*(verdict.news for verdict in verdicts))):
        print(f"no difference, but new: {line}")
    same = sum(verdict.word == "same" for verdict in verdicts)
    print(f"{same} of {len(runs)} runs are the same, in {time.monotonic() - start:.0f} s")
    return 0 if same == len(runs) else 1


class Side:
    """The process that makes all runs of one tree, and the facts that it has found."""

    def __init__(self, name: str, tree: Path, runs: list[Run], work: Path):
        self.tree, self.work, data = tree, work / f"runs-{name}", work / f"data-{name}"
        self.work.mkdir()
        write_data(data)
        jobs = [[r.name, [a.replace(DATA, str(data)) for a in (*COMMON, *r.arguments)]] for r in runs]
        job = self.work / "job.json"
        job.write_text(json.dumps({"runs": jobs, "work": str(self.work), "data": str(data)}))
        self.log = open(self.work / "log", "w+")  # noqa: SIM115 (closed at the end)
        words = [sys.executable, "-P", str(TREE), str(tree), str(job)]
        self.process = subprocess.Popen(
            words, cwd=tree, env={**os.environ, **ENVIRONMENT}, stdout=self.log, stderr=subprocess.STDOUT
        )
        self.found: list[dict[str, Any]] = []

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()

    def wait(self, run: Run) -> dict[str, Any]:
        """Wait for the facts of the next run. Raises UserError if the process ends before them."""
        path, number = self.work / "found.jsonl", len(self.found)
        while True:
            ended = self.process.poll() is not None
            lines = path.read_text().splitlines(keepends=True) if path.exists() else []
            if len(lines) > number and lines[number].endswith("\n"):
                self.found.append(json.loads(lines[number]))
                assert self.found[-1]["name"] == run.name, "both sides make the runs in the same order"
                return self.found[-1]
            if ended:
                raise UserError(self._ended(f"in the run {run.name!r}"))
            time.sleep(0.2)

    def end(self) -> None:
        """Wait for the process's end. Raises UserError if its last check, of what it imported, fails."""
        if self.process.wait():
            raise UserError(self._ended("after its runs"))

    def _ended(self, when: str) -> str:
        """A line about the end of the process, with the last line that it printed."""
        status = self.process.returncode
        self.log.seek(0)
        last = (self.log.read().strip().splitlines() or ["it printed nothing"])[-1]
        if status == REFUSED:
            return f"refused: {last}"
        return f"the process in {self.tree} ended with status {status} {when}: {last}"


if __name__ == "__main__":
    sys.exit(main())
