"""Spike-driven self-attention of SDT: masks and sums, no matrix product.

Example:
    import zoo
    from registry import create

    create("attention", 'sdsa(pool="kv")', dim=64, num_heads=8, step=4).spec  # -> 'sdsa(dim=64, pool="kv")'
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from registry import register
from st_utils.attention.attention_map import Mask
from st_utils.attention.qkv import QKVAttention
from st_utils.layer import max_3x3


@register.attention("sdsa", aliases=("sdsa1", "sdt"), source="Yao et al. 2023 (SDT), arXiv:2307.01694")
class SDSA(QKVAttention):
    """Spike-driven self-attention: Q * neuron(sum over tokens of K * V), linear in tokens and in channels.

    Args:
        pool: "none", or max-pooling over 3 x 3 tokens for event data: "kv" of K and V as in SDT's code, "qkv" of Q
            too as in STAtten's. With either, K * V and the result are pooled as well.
        legacy_token_pool: pool K * V and the result over 3 x 3 of (token, channel) instead of over 3 x 3 tokens. Both
            authors' codes do: their tensors are `[T, B, h, N, d]` at that place, so that the number of heads
            matters. Published weights for event data need it.
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
        super().__init__(dim=dim, num_heads=num_heads, step=step, node=node, qkv_bias=qkv_bias)
        self.pool, self.legacy_token_pool = pool, legacy_token_pool

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        kept = (max_3x3(q) if self.pool == "qkv" else q) * self.mask(k, v)
        return kept if self.pool == "none" else self.pool_product(kept)

    def mask(self, k: Tensor, v: Tensor) -> Tensor:
        """Spikes of the channels that stay, `[T, B, D, 1, 1]`."""
        kv = k * v if self.pool == "none" else self.pool_product(max_3x3(k) * max_3x3(v))
        return self.attn_node(kv.sum((-2, -1), keepdim=True))

    def attention_map(self, x: Tensor) -> Mask:
        """The mask of channels and the queries that it is applied to, before the last pooling."""
        q, k, v = self.qkv(x)
        q = max_3x3(q) if self.pool == "qkv" else q
        mask, q = (each.unflatten(2, (self.num_heads, -1)) for each in (self.mask(k, v), q))
        return Mask(mask, q, "A Q, A = neuron(sum of K V over tokens)")

    def pool_product(self, x: Tensor) -> Tensor:
        """Max-pooling of a product, `[T, B, D, H, W]` -> the same shape."""
        if not self.legacy_token_pool:
            return max_3x3(x)
        split = self.split_heads(x)  # [T, B, h, N, d], pooled over the last two axes
        return self.merge_heads(max_3x3(split.flatten(1, 2)).reshape(split.shape), x.shape[-2])
