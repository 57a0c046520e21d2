"""Firing rates: the spikes per neuron per time step of each layer of neurons.

    rates = FiringRates(model)
    with rates.counting():
        model(images)
    rates.by_layer(), rates.mean()           # {"embedding.stages.0.node": 0.21, ...}, 0.17

Of a layer of N neurons that emits s_{n,t} spikes, the rate is r = sum_{b,t,n} s_{b,t,n} / (B T N) over a batch of B
samples and T steps; for binary spikes it is the share of neurons that fire in a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class FiringRates:
    """Counts the spikes at the outputs of a model's parts of kind `node`.

    Attributes:
        nodes: the nodes by their names in the model.
        spikes: the sum of each node's outputs so far.
        sites: the number of each node's outputs so far: samples x steps x neurons, B T N.
    """

    def __init__(self, model: nn.Module):
        self.nodes = {n: m for n, m in model.named_modules() if getattr(m, "part_kind", None) == "node"}
        self.spikes: dict[str, Tensor] = {}
        self.sites: dict[str, int] = {}

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count every call of a node inside the block."""

        def counter(name: str) -> Callable[[nn.Module, tuple, Tensor], None]:
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
        """Add the counts of the run's other processes; `sums` adds a list of numbers up over all processes."""
        names, both = list(self.nodes), [self.spikes, self.sites]
        totals = iter(sums([float(counts.get(name, 0)) for counts in both for name in names]))
        for counts in both:
            total = dict(zip(names, totals, strict=False))
            counts.update((name, total[name]) for name in counts)

    def by_layer(self) -> dict[str, float]:
        """The firing rate of each node that ran, in spikes per neuron per step, in the order in which they ran."""
        return {name: float(spikes) / self.sites[name] for name, spikes in self.spikes.items()}

    def mean(self) -> float | None:
        """The firing rate over all neurons, in spikes per neuron per step; None for a model without nodes."""
        total = sum(self.sites.values())
        return sum(float(spikes) for spikes in self.spikes.values()) / total if total else None
