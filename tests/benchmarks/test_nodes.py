"""The benchmark of neurons: its rows by hand, its refusal to measure a wrong kernel. No test asserts a time."""

from __future__ import annotations

import argparse
import json
import sys

import pytest
import torch

from benchmarks import nodes
from benchmarks.node_contestants import KernelAlone
from st_utils.kernels.common.compiler import instruction_set
from st_utils.kernels.node import cpu

needs_kernels = pytest.mark.skipif(not cpu.available(), reason="no C++ compiler")
QUICK = argparse.Namespace(device="cpu", quick=True, rounds=1)


def test_the_row_of_the_kernels_alone_by_hand():
    times = {"copy": 2.0, "zoo/forward": 4.0, "zoo/both": 16.0}
    times |= {f"{nodes.KERNEL_ALONE}/forward": 3.0, f"{nodes.KERNEL_ALONE}/both": 10.0}
    assert nodes.of_kernel_alone(times) == {
        "forward_seconds": 3.0,
        "both_seconds": 10.0,
        "forward_over_copy": 1.5,
        "both_over_limit": 2.0,
        "forward_memory_share": 0.25,
        "both_memory_share": 0.375,
    }


@needs_kernels
def test_the_kernels_alone_write_into_their_memory():
    """1.5 in each step: h = 0.75, 1.125 (spike), 0.75, ..., as node/cpu.py's own example has it."""
    alone = KernelAlone(torch.full((4, 1), 1.5))
    spikes, gradient = alone.both(torch.zeros(4, 1))
    assert spikes is alone.spikes and spikes.flatten().tolist() == [0, 1, 0, 1]
    assert gradient is alone.gradient and gradient.flatten().tolist() == [0, 0, 0, 0]


@needs_kernels
def test_kernels_that_give_other_spikes_are_not_measured(monkeypatch):
    x = torch.randn(4, 64, 2)
    assert nodes.kernel_alone(x, torch.ones_like(x)).keys() == {
        f"{nodes.KERNEL_ALONE}/forward",
        f"{nodes.KERNEL_ALONE}/both",
    }
    monkeypatch.setattr(KernelAlone, "forward", lambda self: self.spikes.fill_(1))
    with pytest.raises(SystemExit, match="other spikes"):
        nodes.kernel_alone(x, torch.ones_like(x))


@needs_kernels
def test_a_row_has_a_fresh_copy_and_the_kernels_alone():
    row = nodes.nodes_at((2, 64, 2), QUICK)
    fresh, alone = row[nodes.FRESH_COPY], row[nodes.KERNEL_ALONE]
    assert fresh["forward_over_copy"] == fresh["forward_seconds"] / row["copy_seconds"]
    assert alone["forward_memory_share"] == 1 - alone["forward_seconds"] / row["zoo"]["forward_seconds"]
    assert nodes.KERNEL_ALONE not in nodes.pair_at((2, 1, 3, 4, 4), QUICK)


@needs_kernels
def test_a_measured_part_is_written_with_the_instruction_set_and_drawn(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(nodes, "GRID_STEPS", (1, 2))
    monkeypatch.setattr(
        nodes,
        "nodes_at",
        lambda shape, args: nodes.measure(nodes.pairs(1, 1, "cpu", True), torch.rand(shape[0], 1, 1, 2, 2), 1, "cpu"),
    )
    file = tmp_path / "nodes.json"
    monkeypatch.setattr(
        sys, "argv", ["nodes", "--rounds", "1", "--threads", "1", "--part", "over_steps", "--out", str(file)]
    )
    assert nodes.main() == 0
    result = json.loads(file.read_text())
    assert result["instruction_set"] == instruction_set() and len(result["over_steps"]) == 2
    assert file.with_suffix(".png").stat().st_size > 1000
