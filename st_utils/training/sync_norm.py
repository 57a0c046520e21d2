"""Batch norm over the samples of all processes (Zhang et al. 2018, arXiv:1803.08904)."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from st_utils.training.distributed import world_size


class _SumOfAll(torch.autograd.Function):
    """The sum over the processes; what flows back is the sum of their gradients."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return _SumOfAll.forward(ctx, grad)


class SharedBatchNorm(_BatchNorm):
    """Batch norm of `[N, C, ...]` whose statistics in training are those of all processes' samples.

    y = (x - mean) / sqrt(var + eps) * weight + bias, with mean and biased var a channel; each process has as many
    samples. The sums are taken in double precision: they round to the same statistics however the samples are
    shared out. In plain torch, for CPUs; torch's own `SyncBatchNorm` runs on GPUs only.
    """

    def _check_input_dim(self, x: Tensor) -> None: ...

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        full = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        count = x.numel() // x.shape[1] * world_size()
        channels = (-1, *[1] * (x.dim() - 2))
        mean = self._mean(full, count)
        centred = full - mean.to(full.dtype).view(channels)
        var = self._mean(centred.square(), count)
        if self.running_mean is not None:
            self._remember(mean, var * (count / max(count - 1, 1)))
        y = centred / torch.sqrt(var + self.eps).to(full.dtype).view(channels)
        if self.weight is not None:
            y = y * self.weight.view(channels) + self.bias.view(channels)
        return y.to(x.dtype)

    @staticmethod
    def _mean(x: Tensor, count: int) -> Tensor:
        total = x.sum([axis for axis in range(x.dim()) if axis != 1], dtype=torch.float64)
        return (_SumOfAll.apply(total) if world_size() > 1 else total) / count

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        weight = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), weight)
        self.running_var.lerp_(var.to(self.running_var.dtype), weight)


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with its batch norms over all processes; parameters and state keep their names."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
            module.__class__ = SharedBatchNorm  # its parameters, buffers and settings are the same
    return model
