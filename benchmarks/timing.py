"""Clocks for benchmarks: in one process, alternating, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def seconds(work: Callable[[], object], device: str) -> float:
    """How long work takes, with all that it starts on the device."""
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def alternate(works: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each; the first two rounds warm up.

    Each is called twice and the second call counts, so that nobody pays for what the one before left in caches.
    """
    times = {name: [] for name in works}
    for number in range(rounds + 2):
        for name, work in works.items():
            work()
            taken = seconds(work, device)
            if number > 1:
                times[name].append(taken)
    return {name: statistics.median(taken) for name, taken in times.items()}
