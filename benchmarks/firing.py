"""Make an untrained model fire as in training, and measure how many of its multiplications have an input that is 0.

model = settle(create_model("spikformer"), images).eval()
with torch.no_grad(), ActiveProducts(model) as active:
    model(images)
active.share                             # 0.19: the other 81 % of the products multiply a 0
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def settle(model: nn.Module, images: Tensor, after: Callable[[nn.Module], None] = lambda model: None) -> nn.Module:
    """Set the running statistics of a model's batch norms to those of these images, so that it fires as in training.

    The model is returned in training mode. `after(model)` is called after the forward pass, to reset its state.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(images)
    after(model)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model


class ActiveProducts:
    """Counts, inside a `with` block, the multiplications of a model's layers, and those whose input is not 0."""

    def __init__(self, model: nn.Module):
        self.products = [m for m in model.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Linear)]
        self.all = self.active = 0.0

    def __enter__(self) -> ActiveProducts:
        self.hooks = [module.register_forward_hook(self._count) for module in self.products]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _count(self, module: nn.Module, given: tuple[Tensor, ...], y: Tensor) -> None:
        count = y.numel() * module.weight[0].numel()
        self.all += count
        self.active += count * torch.count_nonzero(given[0]).item() / given[0].numel()

    @property
    def share(self) -> float:
        """The share, 0 to 1, of the multiplications whose input is not 0."""
        return self.active / self.all
