"""Spike-driven self-attention: masks and sums, no product of matrices."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from registry import register
from st_utils.attention.qkv import QKVAttention
from st_utils.layer import max_3x3


@register.attention("sdsa", aliases=("sdsa1",), source="Yao et al. 2023 (SDT), arXiv:2307.01694")
class SDSA(QKVAttention):
    """Q * neuron(sum over tokens of K * V): linear in tokens and channels.

    Args:
        pool: which of the spikes are max-pooled over 3 x 3 pixels, for event data: "kv" in SDT's own code,
            "qkv" in STAtten's; then K * V and the result are pooled too.
        legacy_token_pool: pool those two over (token, channel of a head) instead of over pixels, as both
            authors' codes do: their tensors are `[T, B, heads, N, d]` at that point. Published event weights
            need it, and it makes the number of heads matter.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        step: int = 4,
        node: str = "lif",
        pool: Literal["none", "kv", "qkv"] = "none",
        legacy_token_pool: bool = False,
        qkv_bias: bool = False,
    ):
        super().__init__(dim, num_heads, step, node, qkv_bias)
        self.pool, self.legacy_token_pool = pool, legacy_token_pool

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if self.pool == "none":
            return q * self.attn_node((k * v).sum((-2, -1), keepdim=True))
        q = max_3x3(q) if self.pool == "qkv" else q
        kv = self.pool_product(max_3x3(k) * max_3x3(v)).sum((-2, -1), keepdim=True)
        return self.pool_product(q * self.attn_node(kv))

    def pool_product(self, x: Tensor) -> Tensor:
        if not self.legacy_token_pool:
            return max_3x3(x)
        split = self.split_heads(x)
        return self.merge_heads(max_3x3(split.flatten(1, 2)).reshape(split.shape), x.shape[-2])
