"""Measure the memory of a training step: what it keeps for the backward pass, and its peak.

saved_bytes(lambda: loss(model(images), labels).backward())
peak_bytes(lambda: loss(model(images), labels).backward(), device="cpu")
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn


def saved_bytes(step: Callable[[], object]) -> int:
    """The largest number of bytes that are kept for the backward pass at one time while `step` runs.

    Each storage counts once. Parameters do not count, for they are kept anyway. Under `packed_spikes` the packed
    tensors count, not the originals.
    """
    live: Counter[int] = Counter()
    now = most = 0

    class Kept:
        def __init__(self, tensor: Tensor):
            nonlocal now, most
            self.tensor, storage = tensor, tensor.untyped_storage()
            base = tensor if tensor._base is None else tensor._base
            self.bytes, self.key = 0 if isinstance(base, nn.Parameter) else storage.nbytes(), storage.data_ptr()
            now += 0 if live[self.key] else self.bytes
            live[self.key] += 1
            most = max(most, now)

        def __del__(self):
            nonlocal now
            live[self.key] -= 1
            now -= 0 if live[self.key] else self.bytes

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        step()
    gc.collect()
    return most


def peak_bytes(step: Callable[[], object], device: str = "cpu") -> int:
    """The largest number of bytes that torch allocates at one time while `step` runs, beyond those it had before.

    On a CPU it is the largest running sum of the allocations that torch's profiler records.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    records = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for record in sorted(records, key=lambda r: r.start_ns()):
        now += record.nbytes()
        most = max(most, now)
    return most
