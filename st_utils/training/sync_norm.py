"""Batch norm over the samples of all processes (Zhang et al. 2018, arXiv:1803.08904).

model = synchronised(model, torch.device("cpu"))   # batch norms become SharedBatchNorm, in place
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from st_utils.training.distributed import world_size


class _SumOfAll(torch.autograd.Function):
    """y = sum of x over the processes; the gradient of x is the sum of the gradients of y over the processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _SumOfAll.forward(ctx, grad)


class SharedBatchNorm(_BatchNorm):
    """Batch norm of `[N, C, ...]`; in training its statistics are those of the samples of all processes.

    y = (x - mean) / sqrt(var + eps) * weight + bias, with the mean and the biased variance of each channel. All
    processes must have equally many samples. Sums are in double precision, so that they round to the same statistics
    however the samples are shared out. It is plain torch for CPUs, as torch's `SyncBatchNorm` runs on GPUs alone.
    """

    def _check_input_dim(self, x: Tensor) -> None: ...

    def forward(self, x: Tensor) -> Tensor:
        """x `[N, C, ...]` -> y of the same shape and dtype; in training the running statistics are updated."""
        if not self.training:
            return super().forward(x)
        full = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        count = x.numel() // x.shape[1] * world_size()
        channels = (-1, *[1] * (x.dim() - 2))
        mean = self._mean(full, count)
        centred = full - mean.to(full.dtype).view(channels)
        var = self._mean(centred.square(), count)
        if self.running_mean is not None:
            self._update_running_statistics(mean, var * (count / max(count - 1, 1)))
        y = centred / torch.sqrt(var + self.eps).to(full.dtype).view(channels)
        if self.weight is not None:
            y = y * self.weight.view(channels) + self.bias.view(channels)
        return y.to(x.dtype)

    @staticmethod
    def _mean(x: Tensor, count: int) -> Tensor:
        """The mean of each channel over all processes, float64 `[C]`; `count` is the number of values per channel."""
        total = x.sum([axis for axis in range(x.dim()) if axis != 1], dtype=torch.float64)
        return (_SumOfAll.apply(total) if world_size() > 1 else total) / count

    @torch.no_grad()
    def _update_running_statistics(self, mean: Tensor, var: Tensor) -> None:
        """running = (1 - momentum) running + momentum new; without momentum the average of all batches."""
        self.num_batches_tracked.add_(1)
        weight = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_(var.to(self.running_var.dtype), weight)


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """Make the model's batch norms take their statistics over all processes; names in its state stay the same."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            module.__class__ = SharedBatchNorm  # its parameters, buffers and settings are the same
    return model
