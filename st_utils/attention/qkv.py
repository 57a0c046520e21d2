"""The base class of the attentions with queries, keys and values. A subclass gives `mix`, the product of the three.

Example:
    import torch
    from st_utils.attention.qkv import QKVAttention

    class Mine(QKVAttention):
        def mix(self, q, k, v, height):  # [T, B, h, N, d] each
            return q * k + v

    Mine(dim=64, num_heads=8, step=4, node="lif")(torch.zeros(4, 1, 64, 8, 8)).shape  # -> torch.Size([4, 1, 64, 8, 8])
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from einops import rearrange
from torch import Tensor, nn

from st_utils.attention.attention_map import Mask, Matrix
from st_utils.errors import UserError
from st_utils.kernels.common.layout import channels_last
from st_utils.layer import ConvNorm, ConvNormNode
from st_utils.node.base import build_node


class QKVAttention(nn.Module):
    """proj(neuron(mix(Q, K, V))), each of Q, K, V = neuron(norm(conv 1 x 1(x))) and proj = norm(conv 1 x 1).

    `[T, B, D, H, W]` -> the same shape. A subclass gives `mix`.

    Args:
        value_ratio: v has `value_ratio * dim` channels, q and k have `dim`.
        spiking_layer: `spiking_layer(in_channels, out_channels)` builds the layers of q, k and v, which end with a
            neuron; `None` is convolution 1 x 1, norm and neuron.
        output_layer: `output_layer(in_channels, out_channels)` builds the output projection, which ends without a
            neuron; `None` is convolution 1 x 1 and norm.
        For the others see `st_utils/attention/__init__.py`.

    Attributes:
        formula: what `matrix` gives, for pictures.

    Raises:
        UserError: `dim` is not a multiple of `num_heads`, or `value_ratio` is less than 1.
    """

    formula = "scale Q Kᵀ"

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
        return self.proj(self.attend(*self.qkv(x)))

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Spikes of queries, keys and values, `[T, B, D, H, W]` each."""
        return self.q(x), self.k(x), self.v(x)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """neuron(mix(Q, K, V)), from spikes `[T, B, D, H, W]` each to spikes of v's shape."""
        height = q.shape[-2]
        mixed = self.mix(*(self.split_heads(x) for x in (q, k, v)), height)  # [T, B, h, N, d]
        return self.attn_node(self.merge_heads(mixed, height, last=channels_last(q)))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, height: int) -> Tensor:
        """The attention's own product: `[T, B, h, N, d]` each -> the shape of v, `height` being the grid's rows."""
        raise NotImplementedError

    def matrix(self, q: Tensor, k: Tensor, height: int) -> Tensor | None:
        """The matrix that `mix` multiplies the values with, as in `Matrix`; None where there is none."""
        return None

    def attention_map(self, x: Tensor) -> Matrix | Mask | None:
        """The matrix of an input `[T, B, D, H, W]`, see `st_utils/attention/attention_map.py`."""
        q, k, v = self.qkv(x)
        grid = tuple(q.shape[-2:])
        q, k, v = (self.split_heads(spikes) for spikes in (q, k, v))
        weights = self.matrix(q, k, grid[0])
        return None if weights is None else Matrix(weights, v, grid, grid, self.formula)

    def split_heads(self, x: Tensor) -> Tensor:
        """`[T, B, D, H, W]` -> `[T, B, h, N, d]`."""
        return rearrange(x, "T B (h d) H W -> T B h (H W) d", h=self.num_heads)

    def merge_heads(self, x: Tensor, height: int, last: bool = False) -> Tensor:
        """`[T, B, h, N, d]` -> `[T, B, D, H, W]`, the inverse of `split_heads`.

        With `last` the result is channels-last in memory: where the layers around it are, this saves them a copy.
        """
        if last:
            return rearrange(x, "T B h (H W) d -> T B H W (h d)", H=height).movedim(-1, 2)
        return rearrange(x, "T B h (H W) d -> T B (h d) H W", H=height)
