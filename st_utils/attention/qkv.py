"""What the attentions with queries, keys and values share."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from st_utils.errors import UserError
from st_utils.layer import ConvNorm, ConvNormNode
from st_utils.node.base import build_node


class QKVAttention(nn.Module):
    """Spiking q, k, v by 1 x 1 convolution, norm and neuron; a mix of them; a neuron; an output projection.

    `[T, B, D, H, W]` -> the same, without the neuron of the block around it. A subclass gives `mix`.
    """

    def __init__(
        self, dim: int, num_heads: int, step: int, node: str, qkv_bias: bool = False, attn_threshold: float = 0.5
    ):
        super().__init__()
        if dim % num_heads:
            raise UserError(f"dim={dim} is not a multiple of num_heads={num_heads}")
        self.num_heads, self.step = num_heads, step
        self.q = ConvNormNode(dim, dim, node, step, bias=qkv_bias)
        self.k = ConvNormNode(dim, dim, node, step, bias=qkv_bias)
        self.v = ConvNormNode(dim, dim, node, step, bias=qkv_bias)
        self.attn_node = build_node(node, step, dim, threshold=attn_threshold)
        self.proj = ConvNorm(dim, dim, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.attend(self.q(x), self.k(x), self.v(x)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Spikes `[T, B, D, H, W]` from spikes of the same shape: mix, then the attention's own neuron."""
        height = q.shape[-2]
        mixed = self.mix(*(self.split_heads(x) for x in (q, k, v)), height)
        return self.attn_node(self.merge_heads(mixed, height))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, height: int) -> Tensor:
        """`[T, B, h, N, d]` three times (h heads, N tokens row by row of a grid of `height` rows) -> the same."""
        raise NotImplementedError

    def split_heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "T B (h d) H W -> T B h (H W) d", h=self.num_heads)

    def merge_heads(self, x: Tensor, height: int) -> Tensor:
        return rearrange(x, "T B h (H W) d -> T B (h d) H W", H=height)
