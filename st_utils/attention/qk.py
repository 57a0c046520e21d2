"""The Q-K attentions of QKFormer: a mask from Q on K, linear in tokens and in channels, no V.

Example:
    import zoo
    from registry import create

    create("attention", "qk_token(qkv_bias=true)", dim=64, step=4).spec  # -> 'qk_token(dim=64, qkv_bias=true)'
"""

from __future__ import annotations

from torch import Tensor, nn

from registry import register
from st_utils.attention.attention_map import Mask
from st_utils.errors import UserError
from st_utils.layer import ConvNorm, ConvNormNode
from st_utils.node.base import build_node

QKFORMER = "Zhou et al. 2024 (QKFormer), arXiv:2403.16552; zhouchenlin2096/QKFormer"


class QKAttention(nn.Module):
    """proj(A * K) with the mask A = neuron(sum of Q over some axes): the base class of both Q-K attentions.

    `[T, B, D, H, W]` -> the same shape. Q, K = neuron(norm(conv 1 x 1(x))), proj = norm(conv 1 x 1). A subclass gives
    `count`, the sum.

    Args:
        masks: number of masks; mask m applies to channels m D / masks to (m + 1) D / masks - 1.
    """

    formula = "A K, A = neuron(sum of Q)"  # for pictures

    def __init__(self, dim: int, step: int, node: str, masks: int, attn_threshold: float, qkv_bias: bool):
        super().__init__()
        self.q = ConvNormNode(dim, dim, node, step, bias=qkv_bias)
        self.k = ConvNormNode(dim, dim, node, step, bias=qkv_bias)
        self.attn_node = build_node(node, step, masks, threshold=attn_threshold)
        self.proj = ConvNorm(dim, dim, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        mask, k = self.mask_and_keys(x)
        return self.proj((k * mask).flatten(2, 3))

    def mask_and_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The spikes A `[T, B, masks, 1, H or 1, W or 1]`, and those of K `[T, B, masks, D / masks, H, W]`."""
        q, k = self.q(x), self.k(x)
        mask = self.attn_node(self.count(q))  # [T, B, masks, H or 1, W or 1]
        return mask.unsqueeze(3), k.unflatten(2, (mask.shape[2], -1))

    def attention_map(self, x: Tensor) -> Mask:
        """The mask of an input `[T, B, D, H, W]`, see `st_utils/attention/attention_map.py`."""
        return Mask(*self.mask_and_keys(x), formula=self.formula)

    def count(self, q: Tensor) -> Tensor:
        """Number of spikes of Q per mask, `[T, B, D, H, W]` -> `[T, B, masks, H or 1, W or 1]`."""
        raise NotImplementedError


@register.attention("qk_token", source=QKFORMER)
class QKToken(QKAttention):
    """Q-K token attention: A * K with one mask per head and token, A = neuron(sum of Q over the head's channels).

    Args:
        attn_threshold: with 0.5 and tau = 2, one spike of Q fires the mask's neuron at once.

    Raises:
        UserError: `dim` is not a multiple of `num_heads`.
    """

    formula = "A K, A = neuron(sum of Q over the head's channels)"

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        step: int = 4,
        node: str = "lif",
        attn_threshold: float = 0.5,
        qkv_bias: bool = False,
    ):
        if num_heads < 1 or dim % num_heads:
            raise UserError(f"dim={dim} is not a multiple of num_heads={num_heads}")
        super().__init__(
            dim=dim, step=step, node=node, masks=num_heads, attn_threshold=attn_threshold, qkv_bias=qkv_bias
        )
        self.num_heads = num_heads

    def count(self, q: Tensor) -> Tensor:
        return q.unflatten(2, (self.num_heads, -1)).sum(3)  # [T, B, h, H, W]


@register.attention("qk_channel", source=QKFORMER)
class QKChannel(QKAttention):
    """Q-K channel attention: A * K with one mask per channel, A = neuron(sum of Q over tokens).

    It is in the paper; the authors' code has `qk_token` alone. The number of heads changes nothing here.
    """

    def __init__(self, dim: int, step: int = 4, node: str = "lif", attn_threshold: float = 0.5, qkv_bias: bool = False):
        super().__init__(dim=dim, step=step, node=node, masks=dim, attn_threshold=attn_threshold, qkv_bias=qkv_bias)

    def count(self, q: Tensor) -> Tensor:
        return q.sum((-2, -1), keepdim=True)  # [T, B, D, 1, 1]

    def attention_map(self, x: Tensor) -> Mask:
        mask, k = self.mask_and_keys(x)
        mask, k = mask.transpose(2, 3), k.transpose(2, 3)  # [T, B, 1, D, ...]: no heads
        return Mask(mask, k, "A K, A = neuron(sum of Q over tokens)", heads="all channels")
