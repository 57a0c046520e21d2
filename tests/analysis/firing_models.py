"""Models that fire."""

from __future__ import annotations

import torch
from torch import nn

import zoo


def lively(spec: str) -> nn.Module:
    """A model whose neurons fire."""
    torch.manual_seed(0)
    model = zoo.create_model(spec, img_size=16)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 1, 2)
            nn.init.uniform_(module.bias, 0.2, 0.8)
    with torch.no_grad():
        for _ in range(20):
            model.train()(torch.rand(4, 3, 16, 16))
    return model.eval()


SIZE = "embed_dim=32, depth=1, num_heads=2"
