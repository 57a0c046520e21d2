"""The progress of a run, by hand."""

from __future__ import annotations

import json
import os
import time

import pytest

from benchmarks.leaderboard.status import duration, lines, progress
from benchmarks.leaderboard.store import Store
from benchmarks.leaderboard.suite import Run


def test_time_left_by_hand(tmp_path):
    """Ten epochs of 2 s of training each, every 3 s with their tests; resumed after the sixth; 5 s after the tenth."""
    folder = tmp_path / "key" / "run"
    folder.mkdir(parents=True)
    args, metrics, now = folder / "args.yml", folder / "metrics.jsonl", time.time()
    args.write_text("epochs: 30\nidentity: {}\ncreated: '2020'\n")
    metrics.write_text("".join(json.dumps({"epoch": e, "top1": 9.0 + e, "seconds": 2.0}) + "\n" for e in range(1, 11)))
    for path, when in ((args, now - 16.5), (metrics, now - 5)):
        os.utime(path, (when, when))
    found = progress(tmp_path / "key")
    assert (found.epoch, found.epochs, found.top1) == (10, 30, 19.0)
    # 11.5 s hold five trainings of 2 s, that of the sixth epoch among them
    assert found.seconds_left == pytest.approx(20 * 11.5 / 5 - 5, abs=1)
    assert progress(tmp_path / "nothing") is None


@pytest.mark.parametrize(("seconds", "text"), [(42.4, "42 s"), (310, "5 min 10 s"), (12_000, "3 h 20 min"),
                                               (187_200, "2 d 4 h")])  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_run_on_another_machine_is_shown_as_far_as_is_known(tmp_path):
    with Store(tmp_path / "r.db") as store:
        run = Run("csnn", "digits", "none", 0)
        store.add("suite", [run])
        store.claim([run.key], "elsewhere:1:2")
        _, line = lines(store.runs(), tmp_path / "r.db.runs")
        assert line.endswith("no epoch has begun yet, or its folder is on another machine; by elsewhere:1")
