"""Sees the neurons and max poolings of a model while it runs, and can force what they choose.

with Watch().watching() as watch:
model(x)
watch.calls     # each neuron's spikes
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from st_utils.kernels.node import op
from st_utils.kernels.norm_node import op as norm_node
from st_utils.kernels.spike_conv import op as sparse_conv
from st_utils.layer import conv_norm
from st_utils.node.base import IntegrateAndFire, Node
from st_utils.node.ilif import ILIF

MAX_POOL = F.max_pool2d


class Call(NamedTuple):
    """A neuron's call: its spikes `[T, ...]` and, where asked for, how far each potential is from another spike."""

    spikes: Tensor
    margin: Tensor | None


@dataclass
class Watch:
    """Sees every neuron's call in the order in which they run, whatever computes it; needs no hook, since norm and
    neuron with hooks run one by one.

    `force`: the spikes that go on in each call's place. The gradient goes through the neurons' own, but for neurons
    with a spike that differs in any step; with `kept`, through those that it says. `force_picks`: the elements that max
    pooling takes; of nearly equal ones, another order of summation picks another, to which the whole gradient goes.
    """

    margins: bool = False
    force: list[Tensor] | None = None
    kept: list[Tensor] | None = None
    force_picks: list[Tensor] | None = None
    calls: list[Call] = field(default_factory=list)
    picks: list[Tensor] = field(default_factory=list)  # of each max pooling, the places of the largest elements
    gap: float = 0.0  # by how much a forced pick is less than the largest element, at most
    pairs: int = 0  # norm and neuron as one
    kernels: int = 0  # neurons in a kernel of their own
    convolutions: int = 0  # convolutions and their weights' gradients by additions

    def see(self, spikes: Tensor, margin: Tensor | None = None) -> Tensor:
        """The spikes that go on."""
        at = len(self.calls)
        self.calls.append(Call(spikes.detach(), margin))
        if self.force is None:
            return spikes
        kept = ~self.flips(at).any(0) if self.kept is None else self.kept[at]
        through = spikes * kept.to(spikes.dtype)
        return through + (self.force[at].to(spikes.dtype) - through).detach()

    def flips(self, at: int) -> Tensor:
        """Where the spikes of a call are not the forced ones."""
        return self.calls[at].spikes.double() != self.force[at]

    def pool(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """The largest elements of windows, or the forced ones."""
        largest, places = MAX_POOL(x, *args, return_indices=True, **kwargs)
        self.picks.append(places)
        if self.force_picks is None:
            return largest
        forced = self.force_picks[len(self.picks) - 1]
        y = x.flatten(-2).gather(-1, forced.flatten(-2)).view(forced.shape)
        self.gap = max(self.gap, (largest - y).max().item())
        return torch.empty_like(largest).copy_(y)  # in its order of memory

    @contextlib.contextmanager
    def watching(self) -> Iterator[Watch]:
        call, pair, kernel, conv = nn.Module.__call__, norm_node._run, op._run, conv_norm.conv_then_fire

        def node(module: Node, x: Tensor) -> Tensor:
            return self.see(call(module, x), distance(module, x.detach()) if self.margins else None)

        def fused(*args: object) -> tuple[Tensor, ...]:
            self.pairs += 1
            spikes, *statistics = pair(*args)
            return self.see(spikes), *statistics

        def counted(*args: object) -> Tensor:
            self.kernels += 1
            return kernel(*args)

        def counting(right: Callable) -> Callable:
            def found(*args: object) -> Tensor | None:
                result = right(*args)
                self.convolutions += result is not None
                return result

            return found

        def as_one(*args: object) -> Tensor | None:
            ran = (spikes := conv(*args)) is not None
            self.kernels, self.convolutions = self.kernels + ran, self.convolutions + ran
            return self.see(spikes) if ran else None

        with contextlib.ExitStack() as stack:
            stack.enter_context(mock.patch.object(F, "max_pool2d", self.pool))
            stack.enter_context(mock.patch.object(conv_norm, "conv_then_fire", as_one))
            stack.enter_context(mock.patch.object(Node, "__call__", node, create=True))
            stack.enter_context(mock.patch.object(norm_node, "_run", fused))
            stack.enter_context(mock.patch.object(op, "_run", counted))
            for name in ("_of_spikes", "_weight_of_spikes"):
                stack.enter_context(mock.patch.object(sparse_conv, name, counting(getattr(sparse_conv, name))))
            yield self


def distance(node: Node, x: Tensor) -> Tensor:
    """How far the potential of each step is from one with another spike."""
    if isinstance(node, IntegrateAndFire):
        return (node.potential(x, before_reset=True) - node.threshold).abs()
    assert isinstance(node, ILIF) and not node.decay, f"say how far {node} is from another spike"
    u = x.clamp(0, node.max_spikes)
    return (u - u.floor() - 0.5).abs()
