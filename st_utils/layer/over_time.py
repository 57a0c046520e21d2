"""Layers without time applied to `[T, B, ...]`, and what is spared where all steps are alike."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class OverTime(nn.Sequential):
    """Layers for `[N, C, H, W]` applied to `[T, B, C, H, W]`, time and samples together as their batch."""

    def forward(self, x: Tensor) -> Tensor:
        return over_time(super().forward, x)


def over_time(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer for `[N, C, H, W]` to `[T, B, C, H, W]`, time and samples together as its batch.

    Where all steps are one in memory, as the encoder leaves a static image, a convolution or batch norm computes
    once, and its result's steps are one in memory as well.
    """
    steps, batch = x.shape[:2]
    if isinstance(layer, nn.Identity):
        return x
    if len(drop_repeated_steps(x)) == steps:
        return layer(x.flatten(0, 1)).unflatten(0, (steps, batch))
    if isinstance(layer, nn.Conv2d):
        y = layer(x[0])
    elif type(layer) is nn.BatchNorm2d and layer.momentum is not None and x[0, :, 0].numel() > 1:
        y = _norm_once(layer, x[0], steps)
    else:
        return layer(x.flatten(0, 1)).unflatten(0, (steps, batch))
    return y.expand(steps, *y.shape)


def drop_repeated_steps(x: Tensor) -> Tensor:
    """x `[T, ...]`, or its first step alone, `[1, ...]`, where all steps are one in memory."""
    return x[:1] if x.stride(0) == 0 else x


def _norm_once(norm: nn.BatchNorm2d, x: Tensor, steps: int) -> Tensor:
    """Batch norm of one of `steps` equal steps, `[B, C, H, W]`: mean and variance are those of all.

    But the running variance is unbiased, v count / (count - 1), so it takes the count of all steps.
    """
    if not norm.training or norm.running_mean is None:
        return norm(x)
    var, mean = torch.var_mean(x.detach().to(norm.running_mean.dtype), (0, 2, 3), correction=0)
    update_running_statistics(norm, mean, var, steps * x[:, 0].numel())
    return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)


@torch.no_grad()
def update_running_statistics(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, count: int) -> None:
    """The running statistics after a batch of mean and variance over `count` numbers; the variance kept is unbiased.

    By `.data`, which autograd takes for no change: torch's own batch norm saves the running statistics for a backward
    pass that does not use them, and updates them unseen too. A norm may then be called twice before that pass.
    """
    norm.num_batches_tracked.data.add_(1)
    norm.running_mean.data.lerp_(mean, norm.momentum)
    norm.running_var.data.lerp_(var * (count / (count - 1)), norm.momentum)
