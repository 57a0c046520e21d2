"""Every registered part has a run in the replay."""

from __future__ import annotations

import registry
from benchmarks.replay.runs import listed


def test_every_registered_part_has_a_run():
    names = {run.name for run in listed()}
    assert len(names) == len(listed())
    for kind in ("model", "attention", "embedding", "mlp", "node", "surrogate", "encoder"):
        assert {f"{kind} {name}" for name in registry.names(kind, families=False)} <= names
    options = " ".join(word for run in listed() for word in run.arguments)
    for word in ("--amp bf16", "--mixup", "--tet", "--ema", "--accum-steps", "--recompute", "--pack-spikes"):
        assert word in options
