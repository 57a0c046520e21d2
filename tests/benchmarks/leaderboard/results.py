"""A store that tests fill by hand."""

from __future__ import annotations

from typing import Any

from benchmarks.leaderboard.store import Store, this_process
from benchmarks.leaderboard.suite import Run
from benchmarks.leaderboard.table import join_seeds

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


def three(results: Results, name: str, scores: list[float], **summary: Any) -> None:
    for seed, top1 in enumerate(scores):
        results.add(name, seed, top1, **summary)


def images(*right: int) -> list[float]:
    return [100 * each / 359 for each in right]


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
