"""A batch norm and the neuron after it, as one kernel where that computes the same.

    norm, node = nn.BatchNorm2d(3), create("node", "lif")
    norm_then_fire(norm, node, torch.randn(4, 2, 3, 8, 8)).shape      # torch.Size([4, 2, 3, 8, 8])

Definition of the kernel: st_utils/kernels/norm_node/definition.py.
"""

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
    """`node(norm(x))` over `[T, B, C, H, W]`, in one kernel where that computes the same.

    An x `[1, B, C, H, W]` stands for `steps` equal time steps, as the convolution of a static image does: it is read
    once, and its gradient is the sum over the steps.
    """
    steps = steps or x.shape[0]
    backend = fused_backend(norm, node, x, steps)
    if backend is None:
        return node(over_time(norm, x.expand(steps, *x.shape[1:])))
    of_batch = norm.training or norm.running_mean is None
    form = Norm(
        weight=norm.weight,
        bias=norm.bias,
        mean=None if of_batch else norm.running_mean,
        var=None if of_batch else norm.running_var,
        eps=norm.eps,
    )
    fired = norm_and_fire(x, form, node.decay(), node.form(), steps, backend)
    if norm.training and norm.running_mean is not None:
        count = steps * x.numel() // (x.shape[0] * x.shape[2])  # numbers per channel
        update_running_statistics(norm, fired.mean.detach(), fired.var.detach(), count)
    return fired.spikes


def fused_backend(norm: nn.Module, node: nn.Module, x: Tensor, steps: int) -> str | None:
    """The backend whose kernel computes what the two modules would, hooks included; None: they run themselves.

    They also run themselves where x is in memory neither as written nor with its channels last.
    """
    computes_the_same = (
        type(norm) is nn.BatchNorm2d
        and isinstance(node, IntegrateAndFire)
        and type(node).forward is IntegrateAndFire.forward
        and norm.momentum is not None
        and all(t is None or t.dtype == torch.float32 for t in (norm.weight, norm.running_mean))
        and x.dim() == 5
        and x.shape[2] == norm.num_features
        and steps * x.shape[1] * x.shape[3] * x.shape[4] > 1  # one number has no variance: torch's error
        and not hooked(norm)
        and not hooked(node)
    )
    backend = backend_for(x, node.form(), node.backend) if computes_the_same else None
    return backend if backend and takes(x, backend) else None


def hooked(module: nn.Module) -> bool:
    """Whether a hook looks at the module, whose output the kernel would not show it."""
    return any(getattr(module, f"_{name}") or getattr(modules, f"_global_{name}") for name in HOOKS)
