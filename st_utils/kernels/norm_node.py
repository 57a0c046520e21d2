"""Batch norm and neuron as one: `zoo::norm_and_fire`, on the CPU a channel at a time while it is in the cache.

Between the two nothing is written; of the pair, the input and the statistics are saved. Equal to the pair within
rounding: a potential within rounding of the threshold may fall on its other side.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_double, c_int, c_int64, c_void_p

import torch
import torch.nn.modules.module as modules
from torch import Tensor, nn

from st_utils.kernels import cpu
from st_utils.kernels.compiler import library
from st_utils.kernels.form import Form
from st_utils.kernels.op import backend_for
from st_utils.node.base import IntegrateAndFire

SMALLEST = 16  # rows times columns: below, a channel's memory is too scattered for it to pay
HOOKS = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")


def norm_then_fire(norm: nn.Module, node: nn.Module, x: Tensor) -> Tensor:
    """`node(norm(x))` over `[T, B, C, H, W]`, as one where that computes the same."""
    if not fusable(norm, node, x):
        return node(norm(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
    form, decay = node.form(), node.decay()
    learnt = isinstance(decay, Tensor)
    settings = (decay if learnt else None, 0.0 if learnt else decay, *form)
    shape, running = x.shape, (norm.running_mean, norm.running_var)
    known = (None, None) if norm.training else running
    x = x.flatten(3)
    spikes, mean, var = _norm_and_fire(x, norm.weight, norm.bias, *known, norm.eps, *settings)
    if norm.training:
        _remember(norm, mean.detach(), var.detach(), x.numel() // x.shape[2])
    return spikes.view(shape)


@torch.no_grad()
def _remember(norm: nn.BatchNorm2d, mean: Tensor, var: Tensor, count: int) -> None:
    """The running statistics after a batch; the variance kept is the unbiased one."""
    norm.num_batches_tracked.add_(1)
    norm.running_mean.mul_(1 - norm.momentum).add_(mean, alpha=norm.momentum)
    norm.running_var.mul_(1 - norm.momentum).add_(var, alpha=norm.momentum * count / (count - 1))


def fusable(norm: nn.Module, node: nn.Module, x: Tensor) -> bool:
    """Whether the fused pair computes what the two modules would, hooks included."""
    return (
        type(norm) is nn.BatchNorm2d
        and isinstance(node, IntegrateAndFire)
        and type(node).forward is IntegrateAndFire.forward
        and norm.momentum is not None
        and norm.running_mean is not None
        and norm.running_mean.dtype == torch.float32
        and (norm.weight is None or norm.weight.dtype == torch.float32)
        and x.dim() == 5
        and x.is_contiguous()
        and x.shape[3] * x.shape[4] >= SMALLEST
        and x.shape[0] * x.shape[1] > 0
        and not _hooked(norm)
        and not _hooked(node)
        and backend_for(x, node.form(), node.backend) == "cpu"
        and _available()
    )


def _hooked(module: nn.Module) -> bool:
    return any(getattr(module, f"_{name}") or getattr(modules, f"_global_{name}") for name in HOOKS)


@torch.compiler.assume_constant_result
def _available() -> bool:
    return _library() is not None


class CShape(ctypes.Structure):
    """`struct Shape` of norm_node.cpp."""

    _fields_ = tuple((name, c_int64) for name in ("steps", "batch", "channels", "length"))


def _library() -> ctypes.CDLL | None:
    found = library("norm_node")
    if found and found.zoo_norm_backward.restype is not c_double:
        pointer, shape, form = c_void_p, POINTER(CShape), POINTER(cpu.CForm)
        common = [shape, c_int, c_double, *[pointer] * 4]
        found.zoo_norm_forward.argtypes = [c_int, *[pointer] * 2, *common, form, c_int]
        found.zoo_norm_forward.restype = None
        backward = [c_int, *[pointer] * 3, *common, *[pointer] * 2, form, pointer, c_int, c_int]
        found.zoo_norm_backward.argtypes = backward
        found.zoo_norm_backward.restype = c_double
    return found


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


@torch.library.custom_op("zoo::norm_and_fire", mutates_args=())
def _norm_and_fire(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    known_mean: Tensor | None,
    known_var: Tensor | None,
    eps: float,
    decay: Tensor | None,
    constant_decay: float,
    charge: str,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    surrogate: str,
    alpha: float,
    strict: bool,
    beta: float,
) -> tuple[Tensor, Tensor, Tensor]:
    form = Form(charge, threshold, v_reset, detach_reset, surrogate, alpha, strict, beta)
    x, training = x.contiguous(), known_mean is None
    spikes = torch.empty_like(x)
    mean, var = (
        x.new_empty(x.shape[2], dtype=torch.float32) if k is None else k.clone() for k in (known_mean, known_var)
    )
    c_form = cpu.c_form(form, constant_decay if decay is None else decay)
    _library().zoo_norm_forward(
        *(cpu.DTYPES[x.dtype], x.data_ptr(), spikes.data_ptr(), CShape(*x.shape), training, eps),
        *map(_pointer, (weight, bias, mean, var)),
        *(c_form, cpu.threads(x)),
    )
    return spikes, mean, var


@_norm_and_fire.register_fake
def _(x: Tensor, *_args) -> tuple[Tensor, Tensor, Tensor]:
    channel = x.new_empty(x.shape[2], dtype=torch.float32)
    return torch.empty_like(x, memory_format=torch.contiguous_format), channel, torch.empty_like(channel)


@torch.library.custom_op("zoo::norm_and_fire_backward", mutates_args=())
def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    var: Tensor,
    training: bool,
    eps: float,
    decay: Tensor | None,
    constant_decay: float,
    charge: str,
    threshold: float,
    v_reset: float | None,
    detach_reset: bool,
    surrogate: str,
    alpha: float,
    strict: bool,
    beta: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    form = Form(charge, threshold, v_reset, detach_reset, surrogate, alpha, strict, beta)
    grad, x = grad.contiguous(), x.contiguous()
    grad_x, grad_weight, grad_bias = torch.empty_like(x), torch.empty_like(mean), torch.empty_like(mean)
    c_form = cpu.c_form(form, constant_decay if decay is None else decay)
    found = _library()
    grad_decay = found.zoo_norm_backward(
        *(cpu.DTYPES[x.dtype], *map(_pointer, (grad, x, grad_x)), CShape(*x.shape), training, eps),
        *map(_pointer, (weight, bias, mean, var, grad_weight, grad_bias)),
        *(c_form, cpu.surrogate(found, form), decay is not None, cpu.threads(x)),
    )
    return grad_x, grad_weight, grad_bias, torch.tensor(grad_decay, dtype=torch.float32)


@_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, *_args) -> tuple[Tensor, ...]:
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    return grad_x, torch.empty_like(mean), torch.empty_like(mean), x.new_empty((), dtype=torch.float32)


def _save(ctx, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, known_mean, _, ctx.eps, decay, *ctx.settings = inputs
    ctx.training = known_mean is None
    ctx.save_for_backward(x, weight, bias, *output[1:], decay)


def _differentiate(ctx, grad: Tensor, _grad_mean: Tensor | None, _grad_var: Tensor | None) -> tuple:
    x, weight, bias, mean, var, decay = ctx.saved_tensors
    statistics = mean, var, ctx.training, ctx.eps
    grad_x, *grads = _backward(grad, x, weight, bias, *statistics, decay, *ctx.settings)
    wanted = [g if t is not None else None for g, t in zip(grads, (weight, bias, decay), strict=True)]
    return grad_x, *wanted[:2], None, None, None, wanted[2], *[None] * len(ctx.settings)


_norm_and_fire.register_autograd(_differentiate, setup_context=_save)
