"""Rows that may mislead are marked: hand-made results in a real store."""

from __future__ import annotations

import pytest

from tests.benchmarks.leaderboard.results import images, three


def test_one_seed_at_chance_is_named(results):
    three(results, "ssa", images(340, 37, 342))
    row = results.rows()["ssa"]
    assert row["learned"]
    assert row["marks"] == ["seed 1 did not learn"]


@pytest.mark.parametrize(
    ("changed", "mark"),
    [
        ({"commit": "fff"}, "more than one commit: abc1234, fff"),
        ({"torch": "2.9"}, "more than one torch: 2.0, 2.9"),
        ({"device": "cuda (b)"}, "more than one device: cpu (a test), cuda (b)"),
        ({"identity": {"seed": 2, "lr": 0.2}}, "different settings: lr"),
        ({"test_images": 200}, "different data"),
        ({"data": {"classes": 10, "digest": "0123456789"}}, "different data"),
    ],
)
def test_runs_of_a_row_that_are_not_alike(results, changed, mark):
    results.add("ssa", 0, 97.0)
    results.add("ssa", 1, 97.4)
    assert results.rows()["ssa"]["marks"] == []
    results.add("ssa", 2, 97.2, **changed)
    assert mark in results.rows()["ssa"]["marks"]


def test_seeds_that_are_missing_are_named(results):
    results.add("ssa", 0, 97.0)
    results.add("ssa", 3, 97.2)
    results.queued("ssa", 1)
    results.failed("ssa", 2)
    three(results, "sdsa", [90.0, 90.1, 90.2])
    row = results.rows()["ssa"]
    assert set(row["marks"]) == {"seed 1 not finished", "seed 2 failed"}
    assert row["verdict"] != "best", "a seed that diverged would have lowered the mean"


def test_seeds_that_were_one_run_give_no_spread(results):
    """Another seed draws other weights: equal losses to the last digit are one run under three names."""
    curve = [{"epoch": 1, "top1": 97.0, "train_loss": 0.1, "test_loss": 0.2}]
    three(results, "ssa", [97.0, 97.0, 97.0], metrics=curve)
    three(results, "sdsa", [90.0, 90.1, 90.2])
    row = results.rows()["ssa"]
    assert row["marks"] == ["seeds 1, 2 repeat another seed's run"]
    assert row["top1_std"] is None
    assert row["verdict"] == "one seed"
