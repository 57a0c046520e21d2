"""Folds batch norms into the convolutions before them, for inference.

    model = nn.Sequential(ConvNorm(3, 8, kernel=3))
    fold_norms(model)(torch.randn(4, 2, 3, 8, 8)).shape               # torch.Size([4, 2, 8, 8, 8])

The copy computes as many convolutions and no norm.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def fold_norms(model: nn.Module) -> nn.Module:
    """A copy of the model in eval mode, with its batch norms folded into the convolutions before them.

    Its outputs are the model's within rounding; it has no parameter to train. A module folds its own norms in a method
    `fold_norms()`, as the layers of st_utils do; the norms of modules without that method stay.
    """
    folded = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(folded.modules()):
        if module is not folded and callable(fold := getattr(module, "fold_norms", None)):
            fold()
    return folded


@torch.no_grad()
def fold_norm(conv: nn.Conv2d, norm: nn.Module) -> nn.Module:
    """Change conv in place to what norm(conv(x)) is in evaluation; returns what takes the norm's place, nn.Identity.

    With f = weight / sqrt(var + eps) of the norm, conv's weight is multiplied by f, and its bias b becomes
    f (b - mean) + bias. A norm that has no running statistics can't be folded, and is returned itself.
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
