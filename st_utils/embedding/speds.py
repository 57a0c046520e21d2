"""QKFormer's spiking patch embedding with deformed shortcut (SPEDS).

Example:
    import torch
    import zoo
    from registry import create

    speds = create("embedding", "speds(stride=8)", in_channels=3, embed_dim=64, step=4)
    speds(torch.rand(4, 2, 3, 32, 32)).shape  # -> torch.Size([4, 2, 64, 4, 4])
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from torch import Tensor, nn

from registry import Spec, register
from st_utils.errors import UserError
from st_utils.layer import ConvNormNode


class Layers(NamedTuple):
    """The layers of `speds` for one stride: layer i has embed_dim / divisors[i] channels and pools where pools[i].

    The shortcut begins before layer `start`.
    """

    divisors: tuple[int, ...]
    pools: tuple[bool, ...]
    start: int


BY_STRIDE = {
    1: Layers(divisors=(2, 1), pools=(False, False), start=1),
    4: Layers(divisors=(2, 1, 1), pools=(True, True, False), start=1),
    8: Layers(divisors=(8, 4, 2, 1), pools=(False, True, True, True), start=2),
}


class DeformedShortcut(nn.Module):
    """Convolution layers with a shortcut that changes width and size: layers(x) + neuron(norm(conv 1 x 1(x))).

    `[T, B, C, H, W]` -> `[T, B, C', H', W']`, sums of two spikes (0, 1, 2). A layer is convolution 3 x 3, norm,
    max-pooling where it pools (size halved, rounded up), neuron. The shortcut's stride equals the product of the
    strides of the layers that it bypasses.

    Args:
        widths: channels before the first layer, then after each layer.
        pools: for each layer, whether it pools.
        start: number of layers before the shortcut begins.
    """

    def __init__(self, widths: Sequence[int], pools: Sequence[bool], node: str | Spec, step: int, start: int = 0):
        super().__init__()
        self.start = start
        self.layers = nn.ModuleList(
            ConvNormNode(before, after, node, step, kernel=3, pool=pool)
            for (before, after), pool in zip(pairwise(widths), pools, strict=True)
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
    """QKFormer's first patch embedding: convolution layers with a deformed shortcut.

    `[T, B, C_in, H, W]` -> `[T, B, D, H / stride, W / stride]`, sums of two spikes (0, 1, 2), sizes rounded up.

    Args:
        stride: the authors' code has 1 for CIFAR, 4 for ImageNet, 8 for event data.

    Raises:
        UserError: `embed_dim` is not a multiple of 2, or of 8 for stride 8.
    """

    def __init__(
        self, in_channels: int, embed_dim: int, step: int = 4, node: str = "lif", stride: Literal[1, 4, 8] = 4
    ):
        layers = BY_STRIDE[stride]
        if embed_dim % layers.divisors[0]:
            raise UserError(f"speds: embed_dim must be a multiple of {layers.divisors[0]}, not {embed_dim}")
        widths = (in_channels, *(embed_dim // divisor for divisor in layers.divisors))
        super().__init__(widths, layers.pools, node=node, step=step, start=layers.start)
