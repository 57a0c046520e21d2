"""The Q-K attentions of QKFormer: linear in tokens and channels, no value."""

from __future__ import annotations

from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.layer import ConvNorm, ConvNormNode
from st_utils.node.base import build_node

QKFORMER = "Zhou et al. 2024 (QKFormer), arXiv:2403.16552; zhouchenlin2096/QKFormer"


class QKAttention(nn.Module):
    """proj(mask * K): spikes of Q, summed, tell through a neuron which spikes of K pass. `[T, B, D, H, W]` -> the same.

    Without the neuron of the block around it. A subclass gives `count`, the sums of Q.
    """

    def __init__(self, dim: int, step: int, node: str, masks: int, attn_threshold: float, qkv_bias: bool):
        super().__init__()
        self.q = ConvNormNode(dim, dim, node, step, bias=qkv_bias)
        self.k = ConvNormNode(dim, dim, node, step, bias=qkv_bias)
        self.attn_node = build_node(node, step, masks, threshold=attn_threshold)
        self.proj = ConvNorm(dim, dim, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.q(x), self.k(x)
        mask = self.attn_node(self.count(q))
        return self.proj((k.unflatten(2, (mask.shape[2], -1)) * mask.unsqueeze(3)).flatten(2, 3))

    def count(self, q: Tensor) -> Tensor:
        """Spikes `[T, B, D, H, W]` -> their number for each mask, `[T, B, masks, H or 1, W or 1]`."""
        raise NotImplementedError


@register.attention("qk_token", source=QKFORMER)
class QKToken(QKAttention):
    """Q-K token attention: a token's K passes in a head where neuron(sum of the head's channels of Q) fires.

    Args:
        attn_threshold: of the neuron after the sum. At 0.5 and tau 2, one spike of Q opens the mask at once.
    """

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
        super().__init__(dim, step, node, num_heads, attn_threshold, qkv_bias)
        self.num_heads = num_heads

    def count(self, q: Tensor) -> Tensor:
        return q.unflatten(2, (self.num_heads, -1)).sum(3)


@register.attention("qk_channel", source=QKFORMER)
class QKChannel(QKAttention):
    """Q-K channel attention: a channel's K passes, in all tokens, where neuron(sum of its Q over tokens) fires.

    The paper's other form, of which the authors' code has none. Heads change nothing in it.

    Args:
        attn_threshold: of the neuron after the sum.
    """

    def __init__(self, dim: int, step: int = 4, node: str = "lif", attn_threshold: float = 0.5, qkv_bias: bool = False):
        super().__init__(dim, step, node, dim, attn_threshold, qkv_bias)

    def count(self, q: Tensor) -> Tensor:
        return q.sum((-2, -1), keepdim=True)
