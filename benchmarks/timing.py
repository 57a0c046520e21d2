"""Time functions against each other: in one process, in turn, medians.

alternate({"ours": lambda: conv(x), "torch": lambda: torch_conv(x)}, rounds=9, device="cpu")   # seconds by name
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch


def seconds(work: Callable[[], object], device: str) -> float:
    """The seconds that `work()` takes, until everything that it started on the device has ended."""
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def alternate(works: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, float]:
    """The median seconds of each function over `rounds` rounds, after two rounds of warm-up.

    In a round each is called twice, and the second call counts: the first pays for the caches that the function before
    it has filled.
    """
    times = {name: [] for name in works}
    for number in range(rounds + 2):
        for name, work in works.items():
            work()
            taken = seconds(work, device)
            if number > 1:
                times[name].append(taken)
    return {name: statistics.median(taken) for name, taken in times.items()}
