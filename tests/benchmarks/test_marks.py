"""Rows that could mislead say so: hand-made results in a real store, joined into the table and its files."""

from __future__ import annotations

import csv
import json
import math
from typing import Any

import pytest

from benchmarks.leaderboard.figures import figures
from benchmarks.leaderboard.report import write_report
from benchmarks.leaderboard.store import Store, this_process
from benchmarks.leaderboard.suite import Run
from benchmarks.leaderboard.table import join_seeds, pareto, published_rows

MADE_BY = {"commit": "abc1234", "torch": "2.0", "device": "cpu (a test)"}


class Results:
    """A store that is filled line by line."""

    def __init__(self, path):
        self.store = Store(path)

    def add(self, name: str, seed: int, top1: float | None, **summary: Any) -> None:
        """A finished run, of 359 test images with 37 of the most frequent class where the summary says no other."""
        run = self.queued(name, seed, summary.pop("dataset", "digits"), summary.pop("settings", {}))
        self.store.claim([run.key], this_process())
        metrics = summary.pop("metrics", [{"epoch": 1, "top1": top1}])
        identity = summary.pop("identity", {"seed": seed, "lr": 0.1})
        known = {"top1": top1, "test_images": 359, "chance": 3700 / 359, "epochs": 1, **MADE_BY, **summary}
        results = {"summary": known, "metrics": metrics, "arguments": {"identity": identity}}
        self.store.finish(run.key, this_process(), results)

    def queued(self, name: str, seed: int, dataset: str = "digits", settings: dict | None = None) -> Run:
        run = Run(f"spikformer(attention={name})", dataset, "none", seed, settings or {}, label=name)
        self.store.add("suite", [run])
        return run

    def failed(self, name: str, seed: int) -> None:
        run = self.queued(name, seed)
        self.store.claim([run.key], this_process())
        self.store.fail(run.key, this_process(), "out of memory")

    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["label"]: row for row in join_seeds(self.store.runs())}


@pytest.fixture
def results(tmp_path):
    found = Results(tmp_path / "r.db")
    yield found
    found.store.close()


def three(results: Results, name: str, scores: list[float], **summary: Any) -> None:
    for seed, top1 in enumerate(scores):
        results.add(name, seed, top1, **summary)


def images(*right: int) -> list[float]:
    return [100 * each / 359 for each in right]


def test_what_did_not_learn_leads_nowhere(results, tmp_path):
    """Small, silent and spike-driven, at 12 % of digits: last, no verdict but that, no mark, on no front."""
    three(results, "ssa", images(340, 345, 342), energy_mj=2.0, params=100, spike_driven=True)
    three(results, "sdsa", images(43, 37, 35), energy_mj=0.001, params=1, spike_driven=True)
    rows = results.rows()
    dead = rows["sdsa"]
    assert dead["learned"] is False
    assert dead["verdict"] == "did not learn"
    assert dead["marks"][0] == "did not learn"
    assert dead["spike_driven"] is None
    assert rows["ssa"]["spike_driven"] is True
    assert list(rows) == ["ssa", "sdsa"]
    for cost in ("energy_mj", "params"):
        assert [row["label"] for row in pareto(list(rows.values()), cost)] == ["ssa"]
    page = write_report(results.store.runs(), tmp_path / "out").read_text()
    assert page.count('<tr class="chance"') == 1
    with (tmp_path / "out" / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [(line["label"], line["learned"], line["spike_driven"]) for line in lines] == [
        ("ssa", "True", "True"),
        ("sdsa", "False", ""),
    ]
    (title,) = (t for t in figures(list(rows.values()), []) if "energy" in t)
    drawn = json.loads(figures(list(rows.values()), [])[title])["data"]
    assert [list(each["text"]) for each in drawn if each["name"] == "did not learn"] == [["sdsa"]]


def test_the_only_rows_at_chance_have_no_best(results):
    three(results, "ssa", images(40, 37, 37))
    three(results, "sdsa", images(37, 37, 37))
    assert {row["verdict"] for row in results.rows().values()} == {"did not learn"}


def test_a_control_that_did_not_learn_earns_an_attention_nothing(results):
    three(results, "ssa", images(340, 345, 342))
    three(results, "random", images(37, 37, 36))
    rows = results.rows()
    assert rows["ssa"]["against_random"] == "control did not learn"
    assert rows["random"]["against_random"] == "control"


def test_one_seed_at_chance_is_named(results):
    three(results, "ssa", images(340, 37, 342))
    row = results.rows()["ssa"]
    assert row["learned"]
    assert row["marks"] == ["seed 1 did not learn"]


def test_best_is_above_all_others_by_more_than_the_spread(results):
    three(results, "ssa", [97.0, 97.4, 97.2])
    three(results, "sdsa", [90.0, 90.4, 90.2])
    assert {name: row["verdict"] for name, row in results.rows().items()} == {"ssa": "best", "sdsa": "-7.00"}
    three(results, "identity", [97.1, 97.3, 97.0])
    assert {name: row["verdict"] for name, row in results.rows().items()} == {
        "ssa": "highest mean",
        "identity": "within the spread",
        "sdsa": "-7.00",
    }


def test_one_seed_is_never_the_best_and_may_keep_others_from_it(results):
    results.add("ssa", 0, 99.0)
    assert results.rows()["ssa"]["verdict"] == "one seed"
    three(results, "sdsa", [97.0, 97.4, 97.2])
    assert {n: r["verdict"] for n, r in results.rows().items()} == {"ssa": "one seed", "sdsa": "highest mean"}
    three(results, "identity", [90.0, 90.1])
    assert results.rows()["sdsa"]["verdict"] == "highest mean", "99 % of one seed may be better"


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_what_is_missing_never_leads(results, tmp_path, nothing):
    three(results, "ssa", [97.0, 97.4, 97.2], energy_mj=2.0)
    three(results, "sdsa", [nothing, nothing, nothing], energy_mj=1.0)
    three(results, "identity", [98.0, 98.4, 98.2], energy_mj=nothing)
    results.add("random", 0, 99.0, energy_mj=1.5)
    results.add("random", 1, nothing, energy_mj=1.5)
    rows = results.rows()
    assert list(rows) == ["random", "identity", "ssa", "sdsa"]
    assert rows["sdsa"]["top1"] is None
    assert rows["sdsa"]["verdict"] == "no accuracy"
    assert rows["random"]["verdict"] == "one seed"
    assert rows["random"]["marks"] == ["seed 1 without accuracy", "chance level unknown"]
    assert [row["label"] for row in pareto(list(rows.values()), "energy_mj")] == ["random"]
    page = write_report(results.store.runs(), tmp_path / "out").read_text()
    assert 'data-value="nan"' not in page


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


def test_rows_of_other_test_images_are_compared_with_each_other_only(results):
    three(results, "ssa", [97.0, 97.4, 97.2])
    three(results, "sdsa", [60.0, 60.1, 60.2])
    three(results, "identity", [80.0, 80.1, 80.2], settings={"test_images": 50}, test_images=50)
    three(results, "random", [50.0, 50.1, 50.2], settings={"test_images": 50}, test_images=50)
    rows = results.rows()
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "ssa": "best",
        "sdsa": "-37.10",
        "identity": "best",
        "random": "-30.00",
    }
    assert rows["ssa"]["against_random"] == "", "the control saw other images"
    assert {row["board"] for row in rows.values()} == {"digits", "digits, 50 test images"}


def test_another_content_of_the_same_data_set_is_other_data(results):
    three(results, "ssa", [97.0, 97.4, 97.2], data={"digest": "a" * 32})
    three(results, "sdsa", [60.0, 60.1, 60.2], data={"digest": "b" * 32})
    rows = results.rows()
    assert {row["verdict"] for row in rows.values()} == {"not compared"}
    assert rows["ssa"]["marks"] == ["compared only on the same data: aaaaaaaa, 359 test images"]


def test_published_figures_stand_beside_whole_data_sets_only(results):
    """15,000 images of CIFAR-10 are no match for what was published of all of it, nor is ImageNet for CIFAR-10."""
    three(results, "ssa", [91.0, 91.1], dataset="cifar10", energy_mj=1.0, params=10)
    three(results, "sdsa", [61.0, 61.1], dataset="cifar10", settings={"test_images": 99}, energy_mj=1.0, params=10)
    drawn = {
        title: json.loads(text) for title, text in figures(list(results.rows().values()), published_rows()).items()
    }
    others = {
        title: [text for each in figure["data"] if each["name"] == "published by others" for text in each["text"]]
        for title, figure in drawn.items()
        if "parameters" in title
    }
    assert others.pop("cifar10, 99 test images: top-1 against parameters") == []
    (shown,) = others.values()
    expected = [each for each in published_rows() if each["dataset"] == "cifar10" and each.get("params")]
    assert len(shown) == len(expected) > 0


def test_training_accuracy_and_the_best_epoch_are_columns(results, tmp_path):
    for seed, best in enumerate((3, 5)):
        results.add("ssa", seed, 90.0 + seed, best_top1=92.0 + seed, best_epoch=best, train_top1=99.0 + seed)
    write_report(results.store.runs(), tmp_path / "out")
    header, _, line = (tmp_path / "out" / "table.md").read_text().splitlines()
    cells = dict(zip(header.split(" | "), line.split(" | "), strict=True))
    assert cells["top-1 %"] == "90.50 ± 0.71"
    assert cells["best epoch %"] == "92.50"
    assert cells["best epoch"] == "3, 5"
    assert cells["training top-1 %"] == "99.50"
