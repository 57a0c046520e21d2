"""Batch norm and neuron as one: `zoo::norm_and_fire`, whatever device it runs on.

Between the two nothing is written; of the pair, the input and the statistics are saved. Equal to the pair within
rounding: a potential within rounding of the threshold may fall on its other side. Like the neuron's own operator it
has a fake implementation and a gradient, and no second derivative.
"""

from __future__ import annotations

import torch
import torch.nn.modules.module as modules
from torch import Tensor, nn

from st_utils.kernels.eager import eager, eager_gradient
from st_utils.kernels.form import Norm, read
from st_utils.kernels.layout import channels_last, empty_steps, ordered, ordered_like
from st_utils.kernels.op import arguments, backend_for, kernels, no_second_derivative
from st_utils.node.base import IntegrateAndFire
from st_utils.steps import over_time, remember

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
    settings = norm.eps, *arguments(node.decay(), node.form()), steps, backend
    spikes, mean, var = _run(x, norm.weight, norm.bias, *known, *settings)
    if norm.training and norm.running_mean is not None:
        remember(norm, mean.detach(), var.detach(), steps * x.numel() // (x.shape[0] * x.shape[2]))
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
        and (x.is_contiguous() or channels_last(x))
        and steps * x.shape[1] * x.shape[3] * x.shape[4] > 1  # what a variance needs
        and not _hooked(norm)
        and not _hooked(node)
    )
    backend = backend_for(x, node.form(), node.backend) if usual else None
    least, most = _positions(backend) if backend else (1, 0)
    least = least if x.is_contiguous() else 1  # with the channels last they are many
    return backend if least <= x.shape[3] * x.shape[4] <= most else None


@torch.compiler.assume_constant_result
def _positions(backend: str) -> tuple[int, int]:
    """The least and the most rows times columns that a backend's pair takes; none where it is not available."""
    found = kernels(backend, "_norm_node")
    return found.POSITIONS if found.available() else (1, 0)


def _hooked(module: nn.Module) -> bool:
    return any(getattr(module, f"_{name}") or getattr(modules, f"_global_{name}") for name in HOOKS)


def _norm_and_fire(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    decay: Tensor | None,
    form: str,
    steps: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    norm = Norm(weight, bias, mean, var, eps)
    return kernels(backend, "_norm_node").forward(ordered(x), norm, decay, read(form), steps)


_op = torch.library.custom_op("zoo::norm_and_fire", _norm_and_fire, mutates_args=())


@_op.register_fake
def _(x: Tensor, _weight, _bias, mean: Tensor | None, *others) -> tuple[Tensor, Tensor, Tensor]:
    *_, steps, _ = others
    channel = x.new_empty(x.shape[2] if mean is None else 0, dtype=torch.float32)
    return empty_steps(ordered(x), steps), channel, torch.empty_like(channel)


def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    eps: float,
    decay: Tensor | None,
    form: str,
    batch: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    norm = Norm(weight, bias, mean, var, eps)
    back = kernels(backend, "_norm_node").backward
    x = ordered(x)
    *grads, grad_decay = back(ordered_like(grad, x), x, norm, batch, decay, read(form))
    return *grads, x.new_empty(0, dtype=torch.float32) if grad_decay is None else grad_decay


_backward_op = torch.library.custom_op("zoo::norm_and_fire_backward", _backward, mutates_args=())


@_backward_op.register_fake
def _(_grad, x: Tensor, _weight, _bias, mean: Tensor, _var, _eps, decay: Tensor | None, *_) -> tuple[Tensor, ...]:
    grad_x = torch.empty_like(ordered(x))
    grad_decay = x.new_empty(0 if decay is None else (), dtype=torch.float32)
    return grad_x, torch.empty_like(mean), torch.empty_like(mean), grad_decay


def _save(ctx, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, *known, ctx.eps, decay, ctx.form, _, ctx.backend = inputs
    ctx.batch = known[0] is None
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(x, weight, bias, *(output[1:] if ctx.batch else known), decay)


def _differentiate(ctx, grad: Tensor, *_) -> tuple[Tensor | None, ...]:
    *tensors, decay = ctx.saved_tensors
    grad_x, *grads = _gradient(grad, *tensors, ctx.eps, decay, ctx.form, ctx.batch, ctx.backend)
    weight, bias, decay = (g if t is not None else None for g, t in zip(grads, (*tensors[1:3], decay), strict=True))
    return grad_x, weight, bias, None, None, None, decay, None, None, None


_op.register_autograd(_differentiate, setup_context=_save)
_backward_op.register_autograd(no_second_derivative)
_run = eager(_op, _norm_and_fire, _save, _differentiate)
_gradient = eager_gradient(_backward_op, _backward)
