"""Runs of a suite that are killed, fail, or have no data."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from benchmarks.leaderboard import runner
from benchmarks.leaderboard.__main__ import main
from benchmarks.leaderboard.store import Store
from benchmarks.leaderboard.suite import load_suite, option_words, suite_names
from st_utils.training import launch
from st_utils.training.command_line import OneLineParser, add_settings
from tests.benchmarks.leaderboard.tiny_suite import TINY, ended, statuses, wait_for
from tests.processes import finished, started
from zoo.resolve import resolve


class TestRuns:
    def test_a_killed_runner_goes_on_and_no_run_ends_twice(self, tmp_path, suite):
        store = tmp_path / "results.db"
        words = "benchmarks.leaderboard", "run", "--suite", suite, "--store", str(store)
        for wanted in (0, 1):  # killed in the first run, and again in a later one
            runner = started(*words, told=tmp_path / "killed.log")
            wait_for(store, lambda rows, n=wanted: statuses(rows)["done"] >= n and statuses(rows)["running"] == 1)
            before = ended(store)
            time.sleep(1)
            runner.kill()
            runner.join()
        status, said = finished(*words, told=tmp_path / "after.log")
        assert status == 0, said
        assert "3 of 3 runs are done, 0 failed" in said
        final = ended(store)
        assert {key: when for key, when in final.items() if key in before} == before
        with Store(store) as opened:
            assert opened.check() == "ok"
            rows = opened.runs()
        assert statuses(rows) == {"done": 3}
        assert len(list(tmp_path.glob("results.db.runs/*/*/summary.json"))) == 3
        for row in rows:
            assert {"spec", "seed", "top1", "params", "torch", "device", "commit"} <= row["summary"].keys()
            assert [line["epoch"] for line in row["metrics"]] == [1]
            assert row["arguments"]["full_spec"]
        status, said = finished(*words, told=tmp_path / "again.log")
        assert status == 0
        assert "3 of 3 runs are done" in said
        assert ended(store) == final

    def test_one_failed_run_stops_no_other(self, tmp_path, suite, capfd):
        text = TINY.replace("[ssa, identity, random]", "[identity]")
        Path(suite).write_text(text + '  - {model: "spikformer(embed_dim=12, num_heads=2, step=2)"}\n')
        assert main(["run", "--suite", suite, "--store", str(tmp_path / "r.db")]) == 1
        said = capfd.readouterr()
        assert "embed_dim must be a multiple of 8, not 12 (status 2)" in said.err
        assert "1 of 2 runs are done, 1 failed" in said.out


@pytest.mark.parametrize("suite", suite_names())
def test_data_are_checked_as_the_runs_will_ask_for_them(suite):
    """By what main.py makes of each run's own command line: another frame size would integrate all events twice."""
    parser = OneLineParser(allow_abbrev=False)
    add_settings(parser)
    further = {"data_dir": "d", "cache_dir": "c", "download": True}
    for run in {(run.dataset, run.recipe): run for run in load_suite(suite)}.values():
        settings, _ = resolve(parser.parse([*run.arguments(), *option_words(further)]))
        assert runner.data_offer(run, further) == launch._offer(settings)
