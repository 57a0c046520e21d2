"""The plainest embedding: one convolution and a norm."""

from __future__ import annotations

from torch import Tensor

from registry import register
from st_utils.errors import UserError
from st_utils.layer import ConvNorm, halve
from st_utils.papers import SPIKINGRESFORMER


@register.embedding("conv_stem", source=SPIKINGRESFORMER)
class ConvStem(ConvNorm):
    """Convolution and norm, SpikingResformer's prologue: real values, `[T, B, C_in, H, W]` -> `[T, B, D, H', W']`.

    Every pixel becomes a token; the form for ImageNet, which leaves a quarter of the rows and columns, is
    `conv_stem(kernel=7, stride=2, pool=true)`, max-pooling 3 x 3 of stride 2.
    """

    def __init__(self, in_channels: int, embed_dim: int, kernel: int = 3, stride: int = 1, pool: bool = False):
        if kernel < 1 or stride < 1:
            raise UserError(f"conv_stem: kernel and stride must be at least 1, not {kernel} and {stride}")
        super().__init__(in_channels, embed_dim, kernel, stride)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return halve(x) if self.pool else x
