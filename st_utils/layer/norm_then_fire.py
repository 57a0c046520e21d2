"""A batch norm and the neuron after it, as one kernel where that computes the same."""

from __future__ import annotations

import torch
import torch.nn.modules.module as modules
from torch import Tensor, nn

from st_utils.kernels.node.op import backend_for
from st_utils.kernels.norm_node.form import Norm
from st_utils.kernels.norm_node.op import norm_and_fire, takes
from st_utils.layer.over_time import over_time, update_running_statistics
from st_utils.node.base import IntegrateAndFire

HOOKS = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")


def norm_then_fire(norm: nn.Module, node: nn.Module, x: Tensor, steps: int | None = None) -> Tensor:
    """`node(norm(x))` over `[T, B, C, H, W]`, as one where that computes the same.

    An x `[1, B, C, H, W]` that stands for all of `steps` equal time steps, as the convolution of a static image
    does, is read once; its gradient is the sum over the steps.
    """
    steps = steps or x.shape[0]
    backend = fused_backend(norm, node, x, steps)
    if backend is None:
        return node(over_time(norm, x.expand(steps, *x.shape[1:])))
    batch = norm.training or norm.running_mean is None
    known = (None, None) if batch else (norm.running_mean, norm.running_var)
    fused = Norm(norm.weight, norm.bias, *known, norm.eps)
    spikes, mean, var = norm_and_fire(x, fused, node.decay(), node.form(), steps, backend)
    if norm.training and norm.running_mean is not None:
        update_running_statistics(norm, mean.detach(), var.detach(), steps * x.numel() // (x.shape[0] * x.shape[2]))
    return spikes


def fused_backend(norm: nn.Module, node: nn.Module, x: Tensor, steps: int) -> str | None:
    """The backend whose fused pair computes what the two modules would, hooks included; None: they do it themselves.

    They do so as well where memory has the axes in another order than as written or with the channels last.
    """
    usual = (
        type(norm) is nn.BatchNorm2d
        and isinstance(node, IntegrateAndFire)
        and type(node).forward is IntegrateAndFire.forward
        and norm.momentum is not None
        and all(t is None or t.dtype == torch.float32 for t in (norm.weight, norm.running_mean))
        and x.dim() == 5
        and x.shape[2] == norm.num_features
        and steps * x.shape[1] * x.shape[3] * x.shape[4] > 1  # what a variance needs
        and not _hooked(norm)
        and not _hooked(node)
    )
    backend = backend_for(x, node.form(), node.backend) if usual else None
    return backend if backend and takes(x, backend) else None


def _hooked(module: nn.Module) -> bool:
    return any(getattr(module, f"_{name}") or getattr(modules, f"_global_{name}") for name in HOOKS)
