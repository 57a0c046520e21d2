"""Models for inference alone."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def fold_norms(model: nn.Module) -> nn.Module:
    """A copy of the model in eval mode, its batch norms folded into the convolutions before them.

    It gives the model's outputs within rounding, and has no parameter to train. A module folds its norms by a method
    `fold_norms()`, as the layers of st_utils do; norms of modules that have none stay.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(folded.modules()):
        if module is not folded and callable(fold := getattr(module, "fold_norms", None)):
            fold()
    return folded


@torch.no_grad()
def fold_norm(conv: nn.Conv2d, norm: nn.Module) -> nn.Module:
    """Make of conv what norm(conv(x)) is in evaluation, and return what is left of the norm: nothing, or all of it.

    With f = weight / sqrt(var + eps): the convolution's weight becomes f times what it was, its bias b becomes
    f (b - mean) + bias. A norm that takes the batch's own statistics in evaluation is left.
    """
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None:
        return norm
    factor = torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = -norm.running_mean.double() * factor if conv.bias is None else (conv.bias - norm.running_mean) * factor
    if norm.affine:
        factor, shift = factor * norm.weight, shift * norm.weight + norm.bias
    conv.weight.copy_(conv.weight * factor.view(-1, *[1] * (conv.weight.dim() - 1)))
    conv.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=False)
    return nn.Identity()
