"""Which rows a figure of the page shows."""

from __future__ import annotations

import json

from benchmarks.leaderboard.figures import figures
from benchmarks.leaderboard.table import published_rows
from tests.benchmarks.leaderboard.results import three


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
