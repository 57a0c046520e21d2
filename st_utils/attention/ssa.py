"""Spiking self-attention of Spikformer, and three controls: random, softmax and identity.

Example:
    import zoo
    from registry import create

    create("attention", "ssa(scale=0.25)", dim=64, num_heads=8, step=4).spec  # -> 'ssa(dim=64, scale=0.25)'
    zoo.create_model("spikformer(attention=random)")
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from registry import register
from st_utils.attention.linear_attention import attention_matrix, linear_attention
from st_utils.attention.qkv import QKVAttention

SPIKFORMER = "Zhou et al. 2023 (Spikformer), arXiv:2209.15425; ZK-Zhou/spikformer"


@register.attention("ssa", aliases=("spatial",), source=SPIKFORMER)
class SSA(QKVAttention):
    """Spiking self-attention: neuron(scale Q K^T V) within each time step, no softmax.

    Args:
        scale: the authors' code has 0.125 for CIFAR and ImageNet and 0.25 for event data, whatever the head's width d.
        qkv_bias: the authors' code has true for CIFAR, false for event data and ImageNet.
        proj_bias: false in Spikingformer and SGLFormer.
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
        super().__init__(
            dim=dim,
            num_heads=num_heads,
            step=step,
            node=node,
            qkv_bias=qkv_bias,
            attn_threshold=attn_threshold,
            proj_bias=proj_bias,
        )
        self.scale = scale

    def mix(self, q: Tensor, k: Tensor, v: Tensor, height: int) -> Tensor:
        return linear_attention(q, k, v, self.scale)

    def matrix(self, q: Tensor, k: Tensor, height: int) -> Tensor:
        return attention_matrix(q, k, self.scale)


@register.attention("random", aliases=("random_attn",), source="the STEP benchmark, arXiv:2505.11151; Fancyssc/STEP")
class RandomAttention(SSA):
    """Control: `ssa` whose query and key convolutions are never trained.

    Its accuracy is what a model reaches without learned attention: a gain over it comes from training the queries and
    keys. The norms after the two convolutions are trained, as in the benchmark's code.
    """

    def __init__(self, dim: int, num_heads: int = 8, step: int = 4, node: str = "lif", scale: float = 0.125):
        super().__init__(dim=dim, num_heads=num_heads, step=step, node=node, scale=scale)
        for projection in (self.q, self.k):
            projection.conv.requires_grad_(False)


@register.attention("softmax", aliases=("vsa",), source="Vaswani et al. 2017, arXiv:1706.03762; VSA in " + SPIKFORMER)
class SoftmaxAttention(QKVAttention):
    """Control: vanilla self-attention on spikes, softmax(Q K^T / sqrt(d)) V within each time step."""

    formula = "softmax(Q Kᵀ / sqrt(d))"

    def __init__(self, dim: int, num_heads: int = 8, step: int = 4, node: str = "lif", qkv_bias: bool = True):
        super().__init__(dim=dim, num_heads=num_heads, step=step, node=node, qkv_bias=qkv_bias)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, height: int) -> Tensor:
        return self.matrix(q, k, height).squeeze(-2) @ v

    def matrix(self, q: Tensor, k: Tensor, height: int) -> Tensor:
        return torch.softmax(attention_matrix(q, k, q.shape[-1] ** -0.5), dim=-1)


@register.attention("identity", source="control")
class Identity(nn.Module):
    """Control: no attention, the output is the input."""

    def forward(self, x: Tensor) -> Tensor:
        return x
