"""What SGLFormer has beside its attentions: its block, and the convolution before its head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from einops import rearrange
from torch import Tensor, nn

from registry import create
from st_utils.block import Block, Residual, Shortcut
from st_utils.errors import UserError
from st_utils.kernels.sparse_conv import Conv2d
from st_utils.layer import ConvNorm

MIXER = "sepconv(expansion=4.0, kernel=3, spiking_project=true)"


class SGLBlock(nn.Sequential):
    """Convolutions, local attention with MLP, and twice global attention with MLP, `[T, B, D, H, W]` -> the same."""

    def __init__(self, dim: int, rates: Iterator[float], local_attention: str, attention: str | None, **block: Any):
        super().__init__()
        self.loc = LocalConvolutions(dim, block["node"], block["step"], block["shortcut"])
        for i, mixer in enumerate((local_attention, attention, attention), 1):
            self.add_module(f"pair{i}", Block(dim, attention=mixer, drop_path=next(rates), **block))


class LocalConvolutions(nn.Module):
    """x + y + branch(y) with y = x + another branch, `[T, B, D, H, W]` -> the same; each branch has a neuron.

    The branches are a depthwise 3 x 3 convolution, and a separable one to 4 D channels and back.
    """

    def __init__(self, dim: int, node: str, step: int, shortcut: Shortcut):
        super().__init__()
        mixer = create("attention", MIXER, dim=dim, step=step, node=node)
        self.near = Residual(ConvNorm(dim, dim, kernel=3, groups=dim), dim, node, step, shortcut)
        self.mix = Residual(mixer, dim, node, step, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.near(x))


class FullSize(nn.Module):
    """A weight for each channel, token and step, their sum, norm: `[T, B, D, H, W]` -> `[B, D, 1, 1]`.

    Over more tokens than it has weights for it slides, and the mean is taken; fewer raise UserError.
    """

    def __init__(self, dim: int, tokens: int, step: int):
        super().__init__()
        self.conv = Conv2d(dim, dim, (tokens, step), groups=dim)
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = rearrange(x, "T B D H W -> B D (H W) T")
        if x.shape[2] < (tokens := self.conv.kernel_size[0]):
            raise UserError(f"the head spans {tokens} tokens and got {x.shape[2]}: say img_size or head_tokens")
        return self.norm(self.conv(x)).mean((-2, -1), keepdim=True)
