"""Spiking self-attention, and the controls that share its shape: random and softmax."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from registry import register
from st_utils.attention.qkv import QKVAttention, product

SPIKFORMER = "Zhou et al. 2023 (Spikformer), arXiv:2209.15425; ZK-Zhou/spikformer"


@register.attention("ssa", source=SPIKFORMER)
class SSA(QKVAttention):
    """Spiking self-attention: neuron(scale Q K' V) in every time step, no softmax.

    Args:
        scale: 0.125 for CIFAR and ImageNet, 0.25 for events, whatever the width of a head (the authors' code).
        qkv_bias: true for CIFAR, false for events and ImageNet (the authors' code).
        proj_bias: of the output projection; false in Spikingformer and SGLFormer.
        attn_threshold: of the neuron after the mix.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        step: int = 4,
        node: str = "lif",
        scale: float = 0.125,
        qkv_bias: bool = True,
        attn_threshold: float = 0.5,
        proj_bias: bool = True,
    ):
        super().__init__(dim, num_heads, step, node, qkv_bias, attn_threshold, proj_bias=proj_bias)
        self.scale = scale

    def mix(self, q: Tensor, k: Tensor, v: Tensor, height: int) -> Tensor:
        return product(q, k, v, self.scale)


@register.attention("random", aliases=("random_attn",), source="the STEP benchmark, arXiv:2505.11151; Fancyssc/STEP")
class RandomAttention(SSA):
    """Control: `ssa` whose query and key projections stay as they were drawn.

    What it scores, no learning of where to look has earned. (The norms after them do learn, as in the benchmark.)
    """

    def __init__(self, dim: int, num_heads: int = 8, step: int = 4, node: str = "lif", scale: float = 0.125):
        super().__init__(dim, num_heads, step, node, scale)
        for projection in (self.q, self.k):
            projection.conv.requires_grad_(False)


@register.attention("softmax", aliases=("vsa",), source="Vaswani et al. 2017, arXiv:1706.03762; VSA in " + SPIKFORMER)
class SoftmaxAttention(QKVAttention):
    """Control: vanilla attention, softmax(Q K' / sqrt(d)) V in every time step, on spiking q, k and v."""

    def __init__(self, dim: int, num_heads: int = 8, step: int = 4, node: str = "lif", qkv_bias: bool = True):
        super().__init__(dim, num_heads, step, node, qkv_bias)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, height: int) -> Tensor:
        return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1) @ v


@register.attention("identity", source="control")
class Identity(nn.Module):
    """Control: no attention at all, `[T, B, D, H, W]` as it came."""

    def forward(self, x: Tensor) -> Tensor:
        return x
