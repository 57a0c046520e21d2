"""Applies layers that know no time to `[T, B, ...]`.

    over_time(nn.Conv2d(3, 8, 3), torch.randn(4, 2, 3, 8, 8)).shape                     # torch.Size([4, 2, 8, 6, 6])
    drop_repeated_steps(torch.randn(2, 3, 8, 8).expand(4, 2, 3, 8, 8)).shape            # torch.Size([1, 2, 3, 8, 8])

A static image is expanded over T without copying (stride 0): convolution and batch norm then compute one step once.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from st_utils.kernels.common.layout import channels_last, to_channels_last


class OverTime(nn.Sequential):
    """nn.Sequential of layers for `[N, C, H, W]`, applied to `[T, B, C, H, W]` with N = T B.

    In evaluation, where no layer looks at other images, time steps that are one in memory are computed once.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training or drop_repeated_steps(x) is x:
            return over_time(super().forward, x)
        y = super().forward(x[0])
        return y.expand(len(x), *y.shape)


def over_time(layer: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a layer for `[N, C, H, W]` to `[T, B, C, H, W]` with N = T B.

    Where all time steps are one in memory (`drop_repeated_steps`), a convolution or batch norm computes that step once,
    and all steps of its result are one in memory as well.
    """
    steps, batch = x.shape[:2]
    if isinstance(layer, nn.Identity):
        return x
    if len(drop_repeated_steps(x)) == steps:
        return layer(x.flatten(0, 1)).unflatten(0, (steps, batch))  # [T, B, ...] -> [T B, ...] -> [T, B, ...]
    if isinstance(layer, nn.Conv2d):
        y = layer(x[0])
    elif type(layer) is nn.BatchNorm2d and layer.momentum is not None and x[0, :, 0].numel() > 1:
        y = _norm_once(layer, x[0], steps)
    else:  # flattened, equal steps are copied: in the order of memory that one has
        x = to_channels_last(x) if x.dim() == 5 and channels_last(x[:1]) else x
        return layer(x.flatten(0, 1)).unflatten(0, (steps, batch))
    return y.expand(steps, *y.shape)


def drop_repeated_steps(x: Tensor) -> Tensor:
    """x `[T, ...]`, or `[1, ...]` where all time steps are one in memory.

    A static image is expanded over T without copying: the stride of T is 0, and whatever is computed of one step holds
    for all.
    """
    return x[:1] if x.stride(0) == 0 else x


def _norm_once(norm: nn.BatchNorm2d, x: Tensor, steps: int) -> Tensor:
    """Batch norm of x `[B, C, H, W]`, one of `steps` equal steps, whose mean and variance are those of all steps.

    The running variance is the unbiased one, v N / (N - 1), with the N of all steps: torch would take that of one.
    """
    if not norm.training or norm.running_mean is None:
        return norm(x)
    var, mean = torch.var_mean(x.detach().to(norm.running_mean.dtype), (0, 2, 3), correction=0)
    update_running_statistics(norm, mean, var, steps * x[:, 0].numel())
    return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)


@torch.no_grad()
def update_running_statistics(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, count: int) -> None:
    """Update the norm's running statistics by a batch's mean and population variance `[C]` over `count` numbers.

    The running variance becomes that of the unbiased variance, var count / (count - 1), as in torch. `.data` hides the
    change from autograd, as torch's own batch norm does: it saves the running statistics for a backward pass that does
    not use them, and a second call of the norm before that pass would raise an error.
    """
    norm.num_batches_tracked.data.add_(1)
    norm.running_mean.data.lerp_(mean, norm.momentum)
    norm.running_var.data.lerp_(var * (count / (count - 1)), norm.momentum)
