"""The table's arithmetic by hand, and the page in a real browser."""

from __future__ import annotations

import csv
import shutil
import statistics

import pytest
from scipy import stats

from benchmarks.leaderboard.report import COLUMNS, write_report
from benchmarks.leaderboard.store import Store, this_process
from benchmarks.leaderboard.suite import Run
from benchmarks.leaderboard.table import compare, join_seeds, pareto, published_rows
from st_utils.errors import UserError

SCORES = {"ssa": [97.0, 97.4, 97.2], "random": [97.1, 97.3, 97.0], "identity": [90.0, 90.2, 90.1]}


def finished(store: Store, attention: str, seed: int, top1: float) -> None:
    spec = f"spikformer(attention={attention}, depth=1)"
    run = Run(spec, "digits", "digits", seed, {"epochs": 2})
    store.add(f"{attention}{seed}", [run])
    store.claim([run.key], this_process())
    layers = [{"name": f"blocks.{i}.node", "kind": "node", "firing_rate": 0.1 * i} for i in range(4)]
    results = {
        "summary": {
            "full_spec": spec,
            "top1": top1,
            "epochs": 2,
            "params": 1000 + len(attention),
            "energy_mj": 0.01 * len(attention),
            "sops": 5e5,
            "images_per_second": 100.0 - len(attention),
            "firing_rate": 0.1,
            "spike_driven": attention != "ssa",
            "device": "cpu (a test)",
        },
        "metrics": [{"epoch": e, "top1": top1 - 10 / e} for e in (1, 2)],
        "profile": {"layers": layers},
    }
    store.finish(run.key, this_process(), results)


@pytest.fixture
def runs(tmp_path):
    with Store(tmp_path / "r.db") as store:
        for attention, scores in SCORES.items():
            for seed, top1 in enumerate(scores):
                finished(store, attention, seed, top1)
        return store.runs()


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


def test_files(runs, tmp_path):
    write_report(runs, tmp_path / "out")
    with (tmp_path / "out" / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [float(line["top1"]) for line in lines] == pytest.approx([97.2, 97.13333, 90.1])
    text = (tmp_path / "out" / "table.md").read_text().splitlines()
    assert len(text) == 2 + 3
    assert "97.20 ± 0.20" in text[2]


def test_nothing_done_is_said_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no run of the store is done: .*run --suite smoke"):
        write_report([], tmp_path / "out")


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome on the PATH")
def test_the_page_in_a_browser(runs, tmp_path):
    """Sorts, filters, draws every figure in both themes, asks no network, and no error is on the console."""
    from playwright.sync_api import sync_playwright

    page_file = write_report(runs, tmp_path / "out")
    problems, asked = [], []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1600}, offline=True)
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_file.as_uri())
        assert page.locator("tbody tr").count() == len(SCORES) + len(published_rows())

        page.fill("#search", "digits")
        page.uncheck("#others")
        assert shown(page, "label") == [f"spikformer(attention={a}, depth=1)" for a in ("ssa", "random", "identity")]
        page.click("th[data-name=energy_mj]")  # falling first, then rising
        assert shown(page, "energy_mj") == ["0.0800", "0.0600", "0.0300"]
        page.click("th[data-name=energy_mj]")
        assert shown(page, "energy_mj") == ["0.0300", "0.0600", "0.0800"]
        page.uncheck("#controls")
        assert shown(page, "label") == ["spikformer(attention=ssa, depth=1)"]
        page.check("#others")
        page.fill("#search", "qkformer hst-10-384")
        assert len(shown(page, "label")) == 1
        page.fill("#search", "")
        page.select_option("#dataset", "imnet")
        assert len(shown(page, "label")) == sum(each["dataset"] == "imnet" for each in published_rows())

        figures = page.locator("figure")
        assert figures.count() == 5
        assert page.locator("figure .main-svg").count() >= 5
        assert page.locator("figure .trace, figure .heatmaplayer image").count() >= 5
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.click("#theme")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
        browser.close()
    assert problems == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium or Chrome on the PATH")
def test_what_did_not_learn_is_last_in_every_order_of_the_page(runs, tmp_path):
    from playwright.sync_api import sync_playwright

    for run in runs:
        right = 37 if "identity" in run["spec"] else 350
        run["summary"] |= {"top1": 100 * right / 359, "test_images": 359, "chance": 3700 / 359}
    page_file = write_report(runs, tmp_path / "out")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(page_file.as_uri())
        page.uncheck("#others")
        for column in ("top1", "energy_mj", "params", "label"):
            for _ in ("falling", "rising"):
                page.click(f"th[data-name={column}]")
                assert shown(page, "label")[-1] == "spikformer(attention=identity, depth=1)", column
        page.uncheck("#controls")
        assert len(shown(page, "label")) == 1
        browser.close()


def shown(page, name: str) -> list[str]:
    place = list(COLUMNS).index(name) + 1
    return page.locator(f"tbody tr:not([hidden]) td:nth-child({place})").all_inner_texts()
