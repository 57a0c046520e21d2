"""The floor of a model's time: its dense convolutions and matrix products alone, forward and backward.

floor = Floor(lambda: model(images))     # records the products of one forward pass
seconds(floor.train_step, "cpu")         # what a step takes without norms, neurons, loss and optimiser
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
PRODUCTS = {aten.convolution.default, aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default}


class _Recorder(TorchDispatchMode):
    """Records every product that runs, with its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable, tuple]] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if op in PRODUCTS:
            self.calls.append((op, args))
        return op(*args, **(kwargs or {}))


class Floor(nn.Module):
    """The products of one forward pass `run()`, on random numbers with the same shapes and strides, in the same order.

    The first product, whose input is the image, has no gradient for its input. With `channels_last` the inputs and
    weights of convolutions have that order in memory, whatever order the model's had.
    """

    def __init__(self, run: Callable[[], object], channels_last: bool = False):
        super().__init__()
        with torch.no_grad(), _Recorder() as recorder:
            run()
        self.products = []
        for number, (op, args) in enumerate(recorder.calls):
            fresh = [_like(a, channels_last) if isinstance(a, Tensor) else a for a in args]
            leaves = [a for a in fresh if isinstance(a, Tensor)]
            for leaf in leaves[number == 0 :]:
                leaf.requires_grad_()
            self.products.append((op, fresh))
        self.leaves = [a for _, args in self.products for a in args if isinstance(a, Tensor) and a.requires_grad]
        self.grads = [torch.randn_like(y) for y in self()]

    def forward(self) -> list[Tensor]:
        """The results of all products."""
        return [op(*args) for op, args in self.products]

    def train_step(self) -> None:
        """All products forward, and their gradients."""
        torch.autograd.grad(self(), self.leaves, self.grads)


def _like(x: Tensor, channels_last: bool) -> Tensor:
    fresh = torch.empty_like(x).normal_()
    return fresh.contiguous(memory_format=torch.channels_last) if channels_last and x.dim() == 4 else fresh
