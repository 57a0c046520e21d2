"""`zoo::norm_and_fire`: batch norm and neuron as one operator, on any device.

    form = Form(charge="decay", threshold=1.0, v_reset=0.0, detach="reset", surrogate="sigmoid", alpha=4.0, decay=0.5)
    norm = Norm(weight=None, bias=None, mean=None, var=None, eps=1e-5)
    spikes, mean, var = norm_and_fire(torch.randn(4, 2, 3, 8, 8), norm, 0.5, form, steps=4, backend="cpu")

Definition: st_utils/kernels/norm_node/definition.py. Kernels: `cpu.py` (C++) and `cuda.py` (Triton). The normalised
tensor is never in memory; x and the statistics are saved for the backward pass. Results equal those of norm and neuron
one after the other within rounding: a potential within rounding of the threshold may fall on its other side. There is
no second derivative.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from st_utils.kernels.common.eager import eager, eager_gradient
from st_utils.kernels.common.layout import channels_last, empty_steps, in_known_layout, in_layout_of
from st_utils.kernels.node.form import Form, from_json
from st_utils.kernels.node.op import arguments, kernels, no_second_derivative
from st_utils.kernels.norm_node.definition import Fired
from st_utils.kernels.norm_node.form import Norm


class Positions(NamedTuple):
    """The least and the most rows times columns that a backend takes."""

    least: int
    most: int


class _Inputs(NamedTuple):
    """The operator's inputs, in the order of its schema; or their gradients."""

    x: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None
    mean: Tensor | None = None
    var: Tensor | None = None
    eps: float | None = None
    decay: Tensor | None = None
    form: str | None = None
    steps: int | None = None
    backend: str | None = None


def norm_and_fire(x: Tensor, norm: Norm, decay: Tensor | float, form: Form, steps: int, backend: str) -> Fired:
    """Spikes of x `[T, B, C, H, W]` after norm and neuron, with the batch's mean and variance as in the definition.

    An x `[1, B, C, H, W]` stands for `steps` equal time steps: it is read once, and its gradient is their sum.
    `backend` is the answer of `backend_for`, and it `takes` x.
    """
    return Fired(*_run(x, *norm, *arguments(decay, form), steps, backend))


def takes(x: Tensor, backend: str) -> bool:
    """Whether this backend computes the pair on x `[T, B, C, H, W]`, by its layout and its number of positions."""
    if not (x.is_contiguous() or channels_last(x)):
        return False
    least, most = _positions(backend)
    least = least if x.is_contiguous() else 1  # channels last, memory is read in runs of C, however few the positions
    return least <= x.shape[3] * x.shape[4] <= most


# A constant to torch.compile, which would trace through importlib and the compiler's cache otherwise.
@torch.compiler.assume_constant_result
def _positions(backend: str) -> Positions:
    """What the backend takes; nothing (most is 0) where it is not available."""
    module = kernels(backend, "norm_node")
    return Positions(*module.POSITIONS) if module.available() else Positions(least=1, most=0)


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
    return tuple(kernels(backend, "norm_node").forward(in_known_layout(x), norm, decay, from_json(form), steps))


_op = torch.library.custom_op("zoo::norm_and_fire", _norm_and_fire, mutates_args=())


@_op.register_fake
def _(*inputs: object) -> tuple[Tensor, Tensor, Tensor]:
    given = _Inputs(*inputs)
    mean = given.x.new_empty(given.x.shape[2] if given.mean is None else 0, dtype=torch.float32)
    return empty_steps(in_known_layout(given.x), given.steps), mean, torch.empty_like(mean)


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
    of_batch: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    norm, x = Norm(weight, bias, mean, var, eps), in_known_layout(x)
    back = kernels(backend, "norm_node").backward
    *grads, grad_decay = back(in_layout_of(grad, x), x, norm, decay, from_json(form), of_batch)
    # An operator's schema has no optional result: an empty tensor stands for None.
    return *grads, x.new_empty(0, dtype=torch.float32) if grad_decay is None else grad_decay


_backward_op = torch.library.custom_op("zoo::norm_and_fire_backward", _backward, mutates_args=())


@_backward_op.register_fake
def _(_grad, x: Tensor, _weight, _bias, mean: Tensor, _var, _eps, decay: Tensor | None, *_) -> tuple[Tensor, ...]:
    grad_x = torch.empty_like(in_known_layout(x))
    grad_decay = x.new_empty(0 if decay is None else (), dtype=torch.float32)
    return grad_x, torch.empty_like(mean), torch.empty_like(mean), grad_decay


def _save(ctx, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    given, fired = _Inputs(*inputs), Fired(*output)
    ctx.of_batch = given.mean is None
    mean, var = (fired.mean, fired.var) if ctx.of_batch else (given.mean, given.var)
    ctx.eps, ctx.form, ctx.backend = given.eps, given.form, given.backend
    ctx.mark_non_differentiable(fired.mean, fired.var)
    ctx.save_for_backward(given.x, given.weight, given.bias, mean, var, given.decay)


def _differentiate(ctx, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, mean, var, decay = ctx.saved_tensors
    grad_x, grad_weight, grad_bias, grad_decay = _gradient(
        *(grad, x, weight, bias, mean, var, ctx.eps, decay, ctx.form, ctx.of_batch, ctx.backend)
    )
    grads = _Inputs(
        x=grad_x,
        weight=None if weight is None else grad_weight,
        bias=None if bias is None else grad_bias,
        decay=None if decay is None else grad_decay,
    )
    return tuple(grads)


_op.register_autograd(_differentiate, setup_context=_save)
_backward_op.register_autograd(no_second_derivative)
_run = eager(_op, _norm_and_fire, _save, _differentiate)
_gradient = eager_gradient(_backward_op, _backward)
