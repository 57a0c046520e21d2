"""A layer whose neurons fire: in float64 and evaluation, with random norms."""

from __future__ import annotations

import torch
from torch import nn


def lively(layer: nn.Module, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    with torch.no_grad():
        for module in layer.double().eval().modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.weight.normal_(0, 2.5 * module.weight[0].numel() ** -0.5)
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.8, 1.6)
                module.bias.normal_(0.4, 0.3)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return layer
