"""What the attentions with queries, keys and values share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from einops import rearrange
from torch import Tensor, nn

from st_utils.errors import UserError
from st_utils.kernels.common.layout import channels_last
from st_utils.layer import ConvNorm, ConvNormNode
from st_utils.node.base import build_node


class QKVAttention(nn.Module):
    """Spiking q, k, v by 1 x 1 convolution, norm and neuron; a mix of them; a neuron; an output projection.

    `[T, B, D, H, W]` -> the same, without the neuron of the block around it. A subclass gives `mix`.

    Args:
        value_ratio: v has so many times the channels of q and k.
        spiking_layer, output_layer: (channels in, channels out) -> the layer of q, k and v, which spikes, and that
            of the output, which does not; where they are not those of the class's first line.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        step: int,
        node: str,
        qkv_bias: bool = False,
        attn_threshold: float = 0.5,
        value_ratio: int = 1,
        spiking_layer: Callable[[int, int], nn.Module] | None = None,
        output_layer: Callable[[int, int], nn.Module] | None = None,
        proj_bias: bool = True,
    ):
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise UserError(f"dim={dim} is not a multiple of num_heads={num_heads}")
        if value_ratio < 1:
            raise UserError(f"value_ratio must be at least 1, not {value_ratio}")
        self.num_heads, self.step = num_heads, step
        spiking_layer = spiking_layer or partial(ConvNormNode, node=node, step=step, bias=qkv_bias)
        output_layer = output_layer or partial(ConvNorm, bias=proj_bias)
        self.q = spiking_layer(dim, dim)
        self.k = spiking_layer(dim, dim)
        self.v = spiking_layer(dim, dim * value_ratio)
        self.attn_node = build_node(node, step, dim * value_ratio, threshold=attn_threshold)
        self.proj = output_layer(dim * value_ratio, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.attend(self.q(x), self.k(x), self.v(x)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Spikes `[T, B, D, H, W]` from spikes of the same shape: mix, then the attention's own neuron."""
        height = q.shape[-2]
        mixed = self.mix(*(self.split_heads(x) for x in (q, k, v)), height)
        return self.attn_node(self.merge_heads(mixed, height, last=channels_last(q)))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, height: int) -> Tensor:
        """`[T, B, h, N, d]` three times (h heads, N tokens row by row of a grid of `height` rows) -> the same."""
        raise NotImplementedError

    def split_heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "T B (h d) H W -> T B h (H W) d", h=self.num_heads)

    def merge_heads(self, x: Tensor, height: int, last: bool = False) -> Tensor:
        """`last`: the channels lie last in memory, as those of the tensors around it do."""
        if last:
            return rearrange(x, "T B h (H W) d -> T B H W (h d)", H=height).movedim(-1, 2)
        return rearrange(x, "T B h (H W) d -> T B (h d) H W", H=height)


def product(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """scale Q K' V in the cheaper order, `[T, B, h, N, d]` each -> the shape of v, which may be wider."""
    (tokens, width), wide = q.shape[-2:], v.shape[-1]
    if tokens * (width + wide) <= 2 * width * wide:  # products of (Q K') V and of Q (K' V), each over N
        return (q @ k.transpose(-1, -2)) @ v * scale
    return q @ (k.transpose(-1, -2) @ v) * scale
