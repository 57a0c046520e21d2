"""QKFormer's spiking patch embedding with deformed shortcut."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from registry import Spec, register
from st_utils.errors import UserError
from st_utils.layer import ConvNormNode

# For each stride: a layer's part of the channels and whether it pools, and the layer where the shortcut begins.
FORMS = {
    1: (((2, False), (1, False)), 1),
    4: (((2, True), (1, True), (1, False)), 1),
    8: (((8, False), (4, True), (2, True), (1, True)), 2),
}


class DeformedShortcut(nn.Module):
    """Convolutions with a shortcut of another width and size: layers(x) + neuron(norm(conv 1 x 1(x))).

    `[T, B, C, H, W]` -> `[T, B, C', H', W']` of values 0, 1, 2. A layer is convolution 3 x 3, norm, max-pooling
    where it pools (size halved, rounded up), neuron; the shortcut's stride is that of the layers that it passes.

    Args:
        widths: channels that enter the first layer, and that leave each.
        pools: for each layer, whether it pools.
        start: how many layers come before the shortcut begins.
    """

    def __init__(self, widths: Sequence[int], pools: Sequence[bool], node: str | Spec, step: int, start: int = 0):
        super().__init__()
        self.start = start
        self.layers = nn.ModuleList(
            ConvNormNode(a, b, node, step, kernel=3, pool=pool)
            for (a, b), pool in zip(pairwise(widths), pools, strict=True)
        )
        stride = 2 ** sum(pools[start:])
        self.shortcut = ConvNormNode(widths[start], widths[-1], node, step, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[: self.start]:
            x = layer(x)
        y = x
        for layer in self.layers[self.start :]:
            y = layer(y)
        return y + self.shortcut(x)


@register.embedding("speds", source="Zhou et al. 2024 (QKFormer), arXiv:2403.16552; zhouchenlin2096/QKFormer")
class SPEDS(DeformedShortcut):
    """QKFormer's first patch embedding: `[T, B, C_in, H, W]` -> `[T, B, D, H / stride, W / stride]` of 0, 1, 2.

    Args:
        stride: 1 in the authors' CIFAR form, 4 for ImageNet, 8 for events; sizes are rounded up.
    """

    def __init__(
        self, in_channels: int, embed_dim: int, step: int = 4, node: str = "lif", stride: Literal[1, 4, 8] = 4
    ):
        layers, start = FORMS[stride]
        if embed_dim % layers[0][0]:
            raise UserError(f"speds: embed_dim must be a multiple of {layers[0][0]}, not {embed_dim}")
        widths = (in_channels, *(embed_dim // part for part, _ in layers))
        super().__init__(widths, [pool for _, pool in layers], node, step, start)
