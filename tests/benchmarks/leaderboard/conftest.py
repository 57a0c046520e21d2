"""A small suite, results that tests fill in, and finished runs."""

from __future__ import annotations

import pytest

from benchmarks.leaderboard.store import Store
from tests.benchmarks.leaderboard.results import SCORES, Results, finished
from tests.benchmarks.leaderboard.tiny_suite import TINY


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "tiny.yml"
    path.write_text(TINY)
    return str(path)


@pytest.fixture
def results(tmp_path):
    found = Results(tmp_path / "r.db")
    yield found
    found.store.close()


@pytest.fixture
def runs(tmp_path):
    with Store(tmp_path / "r.db") as store:
        for attention, scores in SCORES.items():
            for seed, top1 in enumerate(scores):
                finished(store, attention, seed, top1)
        return store.runs()
