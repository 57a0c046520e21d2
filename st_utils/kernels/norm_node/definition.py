"""Batch norm and an integrate-and-fire neuron in plain torch: the definition of the kernels of this folder.

    form = Form(charge="decay", threshold=1.0, v_reset=0.0, detach="reset", surrogate="sigmoid", alpha=4.0, decay=0.5)
    norm = Norm(weight=None, bias=None, mean=None, var=None, eps=1e-5)
    spikes, mean, var = norm_and_fire(torch.randn(4, 2, 3, 8, 8), norm, None, form, steps=4)
    spikes.shape, mean.shape                                      # [4, 2, 3, 8, 8], [3]

`forward` of `cpu.py` and `cuda.py` has the same parameters in the same order. The neuron alone is defined in
`st_utils/kernels/node/definition.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from st_utils.kernels.node.definition import integrate_and_fire
from st_utils.kernels.node.form import Form
from st_utils.kernels.norm_node.form import Norm


class Fired(NamedTuple):
    """Spikes `[T, B, C, ...]`, and the batch's mean and population variance `[C]`, empty where the norm has its own."""

    spikes: Tensor
    mean: Tensor
    var: Tensor


def norm_and_fire(x: Tensor, norm: Norm, decay: Tensor | None, form: Form, steps: int) -> Fired:
    """y = (x - mean) / sqrt(var + eps) weight + bias per channel of `[T, B, C, ...]`, then the neuron's spikes of y.

    Mean and variance are taken over T, B and positions. An x `[1, B, C, ...]` stands for `steps` equal time steps.
    """
    axes = [axis for axis in range(x.dim()) if axis != 2]
    of_batch = norm.mean is None
    var, mean = torch.var_mean(x, axes, correction=0) if of_batch else (norm.var, norm.mean)
    weight = torch.ones_like(mean) if norm.weight is None else norm.weight
    bias = torch.zeros_like(mean) if norm.bias is None else norm.bias

    def per_channel(values: Tensor) -> Tensor:  # [C] -> [C, 1, ...]
        return values.view(-1, *[1] * (x.dim() - 3))

    scale = weight / torch.sqrt(var + norm.eps)
    y = (x - per_channel(mean)) * per_channel(scale) + per_channel(bias)
    spikes = integrate_and_fire(y.expand(steps, *y.shape[1:]), decay, form)
    return Fired(spikes, mean, var) if of_batch else Fired(spikes, x.new_empty(0), x.new_empty(0))
