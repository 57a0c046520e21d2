"""How much a model fires where it is measured."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def settle(model: nn.Module, images: Tensor, after: Callable[[nn.Module], None] = lambda model: None) -> nn.Module:
    """The model, its batch norms' running statistics those of these images: it then fires as in training."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(images)
    after(model)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model


class Active:
    """While it is entered, counts the multiplications of a model's products, and those whose input is not zero."""

    def __init__(self, model: nn.Module):
        self.products = [m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Linear)]
        self.all = self.active = 0.0

    def __enter__(self) -> Active:
        self.hooks = [module.register_forward_hook(self._count) for module in self.products]
        return self

    def __exit__(self, *_) -> None:
        for hook in self.hooks:
            hook.remove()

    def _count(self, module: nn.Module, given: tuple[Tensor, ...], y: Tensor) -> None:
        count = y.numel() * module.weight[0].numel()
        self.all += count
        self.active += count * torch.count_nonzero(given[0]).item() / given[0].numel()

    @property
    def part(self) -> float:
        return self.active / self.all
