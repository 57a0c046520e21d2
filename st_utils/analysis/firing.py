"""Firing rates: the spikes per neuron per time step of each layer of neurons.

    rates = FiringRates(model)
    with rates.counting():
        model(images)
    rates.by_layer(), rates.mean()           # {"embedding.stages.0.node": 0.21, ...}, 0.17

Of a layer of N neurons that emits s_{n,t} spikes, the rate is r = sum_{b,t,n} s_{b,t,n} / (B T N) over a batch of B
samples and T steps; for binary spikes it is the share of neurons that fire in a step. `FiringRates(model, steps=T)`
counts each time step by itself too: `rates.by_step()`.
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
        step_spikes, step_sites: the same in each time step, `[T]`, of nodes that got T steps, at once or one after the
            other; empty without `steps`.
    """

    def __init__(self, model: nn.Module, steps: int | None = None):
        self.model, self.steps = model, steps
        self.step_spikes: dict[str, Tensor] = {}
        self.step_sites: dict[str, Tensor] = {}
        self._next_step: dict[str, int] = {}
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
                if self.steps:
                    self._count_steps(name, output.detach())

            return count

        restart = self.model.register_forward_pre_hook(lambda *_: self._next_step.clear())
        handles = [restart]
        handles += [module.register_forward_hook(counter(name)) for name, module in self.nodes.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _count_steps(self, name: str, output: Tensor) -> None:
        """Add an output `[t, ...]` to the steps from where the node's last call in this forward pass ended."""
        start = self._next_step.get(name, 0)
        end = self._next_step[name] = start + len(output)
        if end > self.steps:  # steps and samples in one axis, or a node that serves several places
            self._next_step[name] = self.steps
            for counts in (self.step_spikes, self.step_sites):
                counts[name] = torch.full((self.steps,), float("nan"), dtype=torch.float64)
            return
        for counts, found in (
            (self.step_spikes, output.flatten(1).sum(1, dtype=torch.float64).cpu()),
            (self.step_sites, torch.full((len(output),), float(output[0].numel()), dtype=torch.float64)),
        ):
            counts.setdefault(name, torch.zeros(self.steps, dtype=torch.float64))[start:end] += found

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

    def by_step(self) -> dict[str, list[float] | None]:
        """The firing rate of each node in each time step; None of a node whose steps can't be told apart.

        Over the steps, the rates weighted by the neurons have the node's rate of `by_layer` as their mean.
        """
        found = {name: self.step_spikes[name] / self.step_sites[name] for name in self.step_spikes}
        return {name: None if rates.isnan().any() else rates.tolist() for name, rates in found.items()}

    def mean(self) -> float | None:
        """The firing rate over all neurons, in spikes per neuron per step; None for a model without nodes."""
        total = sum(self.sites.values())
        return sum(float(spikes) for spikes in self.spikes.values()) / total if total else None
