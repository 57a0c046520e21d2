"""The benchmark of convolutions refuses to measure a wrong one; how fast one is, no test asserts."""

from __future__ import annotations

import pytest

from benchmarks import convs
from st_utils.kernels.spike_conv import op as sparse_conv


def test_a_convolution_that_differs_is_not_measured(monkeypatch):
    monkeypatch.setattr(sparse_conv, "LEAST", 0)
    row = convs.layer_at((2, 8, 4, 4), 8, 3, 0.2, rounds=1)
    assert row["forward_speed"] == row["forward_dense_seconds"] / row["forward_spikes_seconds"]
    right = sparse_conv.convolve
    monkeypatch.setattr(sparse_conv, "convolve", lambda *args: right(*args) + 1)
    with pytest.raises(SystemExit, match="differs from torch's"):
        convs.layer_at((2, 8, 4, 4), 8, 3, 0.2, rounds=1)
