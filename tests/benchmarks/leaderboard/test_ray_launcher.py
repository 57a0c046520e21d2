"""A suite on a Ray cluster of two nodes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from benchmarks.leaderboard.__main__ import main
from benchmarks.leaderboard.store import Store
from tests.benchmarks.leaderboard.tiny_suite import TINY, statuses


def test_ray_on_two_nodes(tmp_path, suite):
    """The suite runs on a local cluster of two nodes; a run that fails stops no other."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    Path(suite).write_text(TINY + '  - {model: "spikformer(embed_dim=12, num_heads=2, step=2)"}\n')
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        assert len([node for node in ray.nodes() if node["Alive"]]) == 2
        status = main(["run", "--suite", suite, "--store", str(tmp_path / "r.db"), "--launcher", "ray"])
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert status == 1
    with Store(tmp_path / "r.db") as store:
        rows = store.runs()
    assert statuses(rows) == {"done": 3, "failed": 1}
    assert json.dumps(rows)
    assert os.environ.get("RAY_ADDRESS") is None
