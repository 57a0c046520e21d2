"""The smallest embedding, the prologue of SpikingResformer: one convolution and a norm.

Example:
    import torch
    import zoo
    from registry import create

    stem = create("embedding", "conv_stem(kernel=7, stride=2, pool=true)", in_channels=3, embed_dim=64)
    stem(torch.rand(4, 2, 3, 32, 32)).shape  # -> torch.Size([4, 2, 64, 8, 8])
"""

from __future__ import annotations

from torch import Tensor

from registry import register
from st_utils.errors import UserError
from st_utils.layer import ConvNorm, halve
from st_utils.papers import SPIKINGRESFORMER


@register.embedding("conv_stem", source=SPIKINGRESFORMER)
class ConvStem(ConvNorm):
    """SpikingResformer's prologue: one convolution and a norm, real values.

    `[T, B, C_in, H, W]` -> `[T, B, D, H', W']`. By default every pixel becomes a token. The form for ImageNet,
    `conv_stem(kernel=7, stride=2, pool=true)`, has H' = H / 4 and W' = W / 4.

    Args:
        kernel, stride: of the convolution.
        pool: max-pooling 3 x 3 with stride 2 after the norm.

    Raises:
        UserError: `kernel` or `stride` is less than 1.
    """

    def __init__(self, in_channels: int, embed_dim: int, kernel: int = 3, stride: int = 1, pool: bool = False):
        if kernel < 1 or stride < 1:
            raise UserError(f"conv_stem: kernel and stride must be at least 1, not {kernel} and {stride}")
        super().__init__(in_channels, embed_dim, kernel, stride)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        return halve(x) if self.pool else x
