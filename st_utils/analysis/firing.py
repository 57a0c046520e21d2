"""How often the neurons of a model fire."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class FiringRates:
    """Spikes a neuron and step, counted where parts of kind `node` give their output."""

    def __init__(self, model: nn.Module):
        self.nodes = {n: m for n, m in model.named_modules() if getattr(m, "part_kind", None) == "node"}
        self.spikes: dict[str, Tensor] = {}
        self.sites: dict[str, int] = {}

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Inside, every call of a node counts."""

        def counter(name: str):
            def count(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
                self.spikes[name] = self.spikes.get(name, 0) + output.detach().sum(dtype=torch.float64)
                self.sites[name] = self.sites.get(name, 0) + output.numel()

            return count

        handles = [module.register_forward_hook(counter(name)) for name, module in self.nodes.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def add_other_processes(self, sums: Callable[[list[float]], Iterable[float]]) -> None:
        """Count what the run's other processes counted, too; `sums` adds a list of numbers up over them."""
        names, seen = list(self.nodes), [self.spikes, self.sites]
        totals = iter(sums([float(counts.get(name, 0)) for counts in seen for name in names]))
        for counts in seen:
            total = dict(zip(names, totals, strict=False))
            counts.update((name, total[name]) for name in counts)

    def by_layer(self) -> dict[str, float]:
        """Mean spikes a neuron and step of every node that ran, in order."""
        return {name: float(spikes) / self.sites[name] for name, spikes in self.spikes.items()}

    def mean(self) -> float | None:
        """The mean over all neurons of all layers; None for a model without any."""
        total = sum(self.sites.values())
        return sum(float(spikes) for spikes in self.spikes.values()) / total if total else None
