"""Batch norm and neuron as one: `zoo::norm_and_fire`, whatever device it runs on.

Between the two nothing is written; of the pair, the input and the statistics are saved. Equal to the pair within
rounding: a potential within rounding of the threshold may fall on its other side. Like the neuron's own operator it
has a fake implementation and a gradient, and no second derivative.
"""

from __future__ import annotations

import torch
from torch import Tensor

from st_utils.kernels.common.eager import eager, eager_gradient
from st_utils.kernels.common.layout import channels_last, empty_steps, in_known_layout, in_layout_of
from st_utils.kernels.node.form import Form, read
from st_utils.kernels.node.op import arguments, kernels, no_second_derivative
from st_utils.kernels.norm_node.form import Norm


def norm_and_fire(
    x: Tensor, norm: Norm, decay: Tensor | float, form: Form, steps: int, backend: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes of `[T, B, C, H, W]` after norm and neuron, with the mean and variance that the norm took, `[C]` each.

    These two are empty where `norm` has its own. An x `[1, B, C, H, W]` stands for all of `steps` equal time steps: it
    is read once, and its gradient is the sum over the steps. `backend` is one that `takes` this.
    """
    return _run(x, *norm, *arguments(decay, form), steps, backend)


def takes(x: Tensor, backend: str) -> bool:
    """Whether this backend computes the pair on x `[T, B, C, H, W]`, by its order in memory and number of positions."""
    if not (x.is_contiguous() or channels_last(x)):
        return False
    least, most = _positions(backend)
    least = least if x.is_contiguous() else 1  # with the channels last they are many
    return least <= x.shape[3] * x.shape[4] <= most


@torch.compiler.assume_constant_result
def _positions(backend: str) -> tuple[int, int]:
    """The least and the most rows times columns that a backend's pair takes; none where it is not available."""
    found = kernels(backend, "norm_node")
    return found.POSITIONS if found.available() else (1, 0)


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
    return kernels(backend, "norm_node").forward(in_known_layout(x), norm, decay, read(form), steps)


_op = torch.library.custom_op("zoo::norm_and_fire", _norm_and_fire, mutates_args=())


@_op.register_fake
def _(x: Tensor, _weight, _bias, mean: Tensor | None, *others) -> tuple[Tensor, Tensor, Tensor]:
    *_, steps, _ = others
    channel = x.new_empty(x.shape[2] if mean is None else 0, dtype=torch.float32)
    return empty_steps(in_known_layout(x), steps), channel, torch.empty_like(channel)


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
    back = kernels(backend, "norm_node").backward
    x = in_known_layout(x)
    *grads, grad_decay = back(in_layout_of(grad, x), x, norm, batch, decay, read(form))
    return *grads, x.new_empty(0, dtype=torch.float32) if grad_decay is None else grad_decay


_backward_op = torch.library.custom_op("zoo::norm_and_fire_backward", _backward, mutates_args=())


@_backward_op.register_fake
def _(_grad, x: Tensor, _weight, _bias, mean: Tensor, _var, _eps, decay: Tensor | None, *_) -> tuple[Tensor, ...]:
    grad_x = torch.empty_like(in_known_layout(x))
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
