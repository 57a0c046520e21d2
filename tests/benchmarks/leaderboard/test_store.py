"""The store: several writers, runners that die, and files that are no store."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.leaderboard.store import Store, alive, this_process
from benchmarks.leaderboard.suite import Run
from st_utils.errors import UserError


def run_number(number: int) -> Run:
    return Run("spikformer", "digits", "none", number)


def write_rows(path: str, first: int, count: int) -> None:
    owner = this_process()
    with Store(path) as store:
        for number in range(first, first + count):
            run = run_number(number)
            store.add(f"suite{number}", [run])
            assert store.claim([run.key], owner)["key"] == run.key
            assert store.finish(run.key, owner, {"summary": {"top1": number}})


class TestStore:
    def test_eight_processes_write_a_thousand_rows_each(self, tmp_path):
        path = str(tmp_path / "results.db")
        context = multiprocessing.get_context("fork")
        writers = [context.Process(target=write_rows, args=(path, i * 1000, 1000)) for i in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
            assert writer.exitcode == 0
        with Store(path) as store:
            rows = store.runs()
            assert store.check() == "ok"
        assert sorted(row["summary"]["top1"] for row in rows) == list(range(8000))
        assert {row["status"] for row in rows} == {"done"}

    def test_a_run_is_claimed_once(self, tmp_path):
        run = run_number(0)
        with Store(tmp_path / "a.db") as one, Store(tmp_path / "a.db") as other:
            one.add("suite", [run])
            other.add("suite", [run])
            assert one.claim([run.key], this_process()) is not None
            assert other.claim([run.key], this_process()) is None
            assert not other.finish(run.key, "somebody:1:2", {})
            one.fail(run.key, this_process(), "why")
            assert other.claim([run.key], this_process()) is None
            assert other.claim([run.key], this_process(), retry=True) is not None

    def test_what_a_dead_process_had_is_free(self, tmp_path):
        run = run_number(0)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        start = Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
        owner = ":".join([*this_process().split(":")[:-2], str(child.pid), start])
        with Store(tmp_path / "a.db") as store:
            store.add("suite", [run])
            store.claim([run.key], owner)
            assert alive(owner, time.time())
            assert store.claim([run.key], this_process()) is None
            child.kill()  # and not waited for: a process that nobody buried is dead too
            while alive(owner, time.time()):
                time.sleep(0.01)
            assert store.claim([run.key], this_process()) is not None
        child.wait()

    def test_a_runner_on_another_machine_is_dead_when_it_is_silent(self):
        assert alive("elsewhere:1:2", time.time() - 60)
        assert not alive("elsewhere:1:2", time.time() - 600)

    @pytest.mark.parametrize("make", [lambda p: p.write_text("x" * 5000), lambda p: p.mkdir()])
    def test_what_is_no_store_is_refused(self, tmp_path, make):
        make(tmp_path / "a.db")
        with pytest.raises(UserError, match=r"cannot use .*a\.db as the store: .*--store"):
            Store(tmp_path / "a.db")
