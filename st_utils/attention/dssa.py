"""Dual spike self-attention: a map between patches and tokens, and no keys and values of its own."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.kernels.spike_conv.op import Conv2d
from st_utils.layer import ConvNorm, over_time
from st_utils.node.base import build_node
from st_utils.papers import SPIKINGRESFORMER

MOMENTUM = 0.999  # of the firing rates that are remembered


@register.attention("dssa", source=f"{SPIKINGRESFORMER}; Fancyssc/SpikingTransformerBenchmark")
class DSSA(nn.Module):
    """Dual spike self-attention: neuron(c2 Y2 neuron(c1 Y1' X)) with Y1, Y2 a strided convolution of the spikes X.

    `[T, B, D, H, W]` -> the same, without the neuron of the block around it. A head has d channels of X over N
    tokens and of Y1, Y2 over P patches of `patch` x `patch` tokens; the map between is `[P, N]`, of spikes. The
    scales keep the variance: c1 = 1 / sqrt(f_x d) and c2 = 1 / sqrt(f_a P), with f the heads' firing rates of X and of
    the map, running means of what training saw. A rate that is not known yet, or is 0, counts as 1 (the authors'
    code divides by zero there: in evaluation before training, and for a head that is silent).

    Args:
        patch: tokens along a side of a patch; those that fill none are left out of Y1 and Y2. none is 1, or in
            `spikingresformer` its stage's.
        legacy_length: stands for P; the STEP benchmark has 3136, an image of 224 pixels, whatever the image.
    """

    rate_x: Tensor
    rate_attn: Tensor

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        step: int = 4,
        node: str = "lif",
        patch: int | None = None,
        legacy_length: int | None = None,
    ):
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise UserError(f"dim={dim} is not a multiple of num_heads={num_heads}")
        patch = 1 if patch is None else patch
        if patch < 1:
            raise UserError(f"dssa: patch must be at least 1, not {patch}")
        self.num_heads, self.patch, self.legacy_length = num_heads, patch, legacy_length
        self.duals = nn.Sequential()
        self.duals.conv = Conv2d(dim, 2 * dim, patch, patch, bias=False)
        self.duals.norm = nn.BatchNorm2d(2 * dim)
        self.attn_node = build_node(node, step, num_heads)
        self.out_node = build_node(node, step, dim)
        self.proj = ConvNorm(dim, dim)
        for name in ("rate_x", "rate_attn"):
            self.register_buffer(name, torch.zeros(1, 1, num_heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if min(height, width) < self.patch:
            raise UserError(f"dssa: a grid of {height} x {width} tokens has no patch of {self.patch} x {self.patch}")
        heads = {"h": self.num_heads}
        y1, y2 = rearrange(over_time(self.duals, x), "T B (h y d) H W -> y T B h d (H W)", y=2, **heads)
        x = rearrange(x, "T B (h d) H W -> T B h d (H W)", **heads)
        attn = self.attn_node(y1.transpose(-1, -2) @ x * self.scale("rate_x", x, x.shape[3]))
        mixed = y2 @ attn * self.scale("rate_attn", attn, self.legacy_length or y2.shape[-1])
        return self.proj(self.out_node(rearrange(mixed, "T B h d (H W) -> T B (h d) H W", H=height)))

    def scale(self, name: str, spikes: Tensor, terms: int) -> Tensor:
        """1 / sqrt(firing rate * terms), `[1, 1, h, 1, 1]`; in training the rate is updated first."""
        rate = getattr(self, name)
        if self.training:
            batch = spikes.detach().abs().mean((0, 1, 3, 4), keepdim=True, dtype=rate.dtype)
            rate.copy_(MOMENTUM * torch.where(rate > 0, rate, batch) + (1 - MOMENTUM) * batch)
        return (torch.where(rate > 0, rate, 1) * terms).rsqrt()
