"""How the files of results are named."""

from __future__ import annotations

from benchmarks.result import RESULTS, result_path


def test_a_file_is_named_after_the_machine():
    settings = {"device": "cpu (AMD EPYC)", "instruction_set": "avx2", "threads": 2}
    assert result_path("nodes", settings) == RESULTS / "nodes-cpu-amd-epyc-avx2-2-threads.json"
    assert result_path("nodes", settings | {"instruction_set": None}).name == "nodes-cpu-amd-epyc-2-threads.json"
    assert RESULTS.name == "results" and RESULTS.is_dir()
