"""The report's files, and its page in a real browser."""

from __future__ import annotations

import csv
import shutil

import pytest

from benchmarks.leaderboard.report import COLUMNS, write_report
from benchmarks.leaderboard.table import published_rows
from st_utils.errors import UserError
from tests.benchmarks.leaderboard.results import SCORES


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
