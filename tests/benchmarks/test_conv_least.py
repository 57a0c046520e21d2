"""From which size on the sums over spikes pay: sizes and the answer by hand. No test asserts a time."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from benchmarks import conv_least, convs
from st_utils.kernels.spike_conv import op

needs_kernels = pytest.mark.skipif(not op.available(), reason="no C++ compiler")


def test_the_layers_have_the_sizes_that_they_say():
    assert conv_least.channels(12, 1) == (8, 8) and conv_least.multiplications(12, 1) == 64 * 8 * 8 == 2**12
    assert conv_least.channels(13, 1) == (8, 16) and conv_least.multiplications(13, 1) == 2**13
    assert conv_least.channels(20, 1) == (128, 128)
    assert conv_least.channels(12, 3) == (2, 4) and conv_least.multiplications(12, 3) == 64 * 8 * 9
    sizes = [conv_least.multiplications(power, kernel) / 2**power for power in conv_least.POWERS for kernel in (1, 3)]
    assert set(sizes) == {1, 9 / 8}


def test_the_least_is_where_all_larger_ones_are_faster():
    speeds = {16: [2.0], 32: [0.9], 64: [1.2, 1.0], 128: [1.1], 256: [3.0, 1.5]}
    rows = [{"multiplications": n, "forward_speed": speed} for n, each in speeds.items() for speed in each]
    assert conv_least.least(rows, "forward") == 128  # 1.0 is not faster
    assert conv_least.least(rows[:3], "forward") == 64
    assert conv_least.least(rows[:2], "forward") is None
    assert conv_least.least([{"multiplications": 8, "forward_speed": 0.5}], "forward") is None


@needs_kernels
def test_the_operator_runs_below_the_least_while_it_is_measured(monkeypatch):
    ran, right, before = [], op.forward_library().zoo_forward, op.LEAST
    monkeypatch.setattr(op.forward_library(), "zoo_forward", lambda *args: ran.append(1) or right(*args))
    row = conv_least.measure(12, 1, batch=1, rounds=1, calls=1)
    assert ran and row["multiplications"] == 2**12 < before == op.LEAST
    assert row["both_speed"] == row["both_torch_seconds"] / row["both_ours_seconds"]
    assert (row["channels"], row["out"], row["images"]) == (8, 8, 4)


@needs_kernels
def test_a_convolution_that_differs_is_not_measured(monkeypatch):
    right = op.convolve
    monkeypatch.setattr(op, "_run", lambda *args: right(*args) + 1)
    with pytest.raises(SystemExit, match="forward of .* differs from torch's"):
        conv_least.measure(12, 3, batch=1, rounds=1, calls=1)


@needs_kernels
def test_the_option_writes_its_result_and_a_picture(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(conv_least, "POWERS", (12, 13))
    monkeypatch.setattr(conv_least, "CALLS", 1)
    file = tmp_path / "least.json"
    monkeypatch.setattr(sys, "argv", ["convs", "--least", "--rounds", "1", "--threads", "1", "--out", str(file)])
    threads = torch.get_num_threads()
    assert convs.main() == 0
    torch.set_num_threads(threads)
    result = json.loads(file.read_text())
    assert result["least_in_use"] == op.LEAST and len(result["rows"]) == 8 and len(result["least"]) == 8
    assert result["instruction_set"] and "strided" not in result
    assert file.with_suffix(".png").stat().st_size > 1000
