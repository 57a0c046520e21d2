"""The table's rows: means, spread, verdicts and comparisons, by hand and against scipy."""

from __future__ import annotations

import csv
import json
import math
import statistics

import pytest
from scipy import stats

from benchmarks.leaderboard.figures import figures
from benchmarks.leaderboard.report import write_report
from benchmarks.leaderboard.table import compare, join_seeds, pareto, published_rows
from tests.benchmarks.leaderboard.results import SCORES, images, three


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


def test_seeds_are_joined_into_mean_and_spread(runs):
    rows = {row["attention"]: row for row in join_seeds(runs)}
    for attention, scores in SCORES.items():
        assert rows[attention]["top1"] == pytest.approx(statistics.fmean(scores))
        assert rows[attention]["top1_std"] == pytest.approx(statistics.stdev(scores))
        assert rows[attention]["seeds"] == [0, 1, 2]
    assert {a: row["control"] for a, row in rows.items()} == {"ssa": False, "random": True, "identity": True}


def test_a_difference_is_said_only_where_it_exceeds_the_spread(runs):
    rows = {row["attention"]: row for row in join_seeds(runs)}
    assert rows["ssa"]["verdict"] == "highest mean", "random attention is within its spread"
    assert rows["random"]["verdict"] == "within the spread"
    assert rows["identity"]["verdict"] == "-7.10"
    assert rows["ssa"]["against_random"] == "within the spread"
    assert rows["random"]["against_random"] == "control"
    assert rows["identity"]["against_random"] == "-7.03"


@pytest.mark.parametrize("shift", [0.05, 0.2, 0.3, 0.5, 1.0])
def test_the_interval_is_welchs(shift):
    a, b = [97.0, 97.4, 97.2], [x - shift for x in (97.5, 97.2, 97.0, 97.1)]
    significant = stats.ttest_ind(a, b, equal_var=False).pvalue < 0.05
    assert (compare({"scores": a}, {"scores": b}) != "within the spread") == significant


def test_one_seed_ranks_nothing():
    assert compare({"scores": [99.0]}, {"scores": [50.0, 51.0]}) == "one seed"


def test_pareto_front_by_hand():
    rows = [{"top1": t, "cost": c} for t, c in ((90, 3), (95, 5), (92, 4), (91, 6), (95, 7), (80, 1))]
    assert [(r["top1"], r["cost"]) for r in pareto(rows, "cost")] == [(80, 1), (90, 3), (92, 4), (95, 5)]
    assert [(r["top1"], r["cost"]) for r in pareto(rows, "cost", less_is_better=False)] == [(95, 7)]


def test_published_rows_say_where_they_stand():
    rows = published_rows()
    assert len(rows) >= 20
    for row in rows:
        assert {"label", "dataset", "top1", "where", "source"} <= row.keys()
        assert " at " in row["where"], "a repository and its commit"
        assert 50 < row["top1"] < 100
