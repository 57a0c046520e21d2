"""Dual spike self-attention of SpikingResformer: two patch embeddings of the input in place of q, k and v.

Example:
    import zoo
    from registry import create

    create("attention", "dssa(patch=2)", dim=64, num_heads=8, step=4).spec  # -> 'dssa(dim=64, patch=2)'
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from registry import register
from st_utils.attention.attention_map import Matrix
from st_utils.errors import UserError
from st_utils.kernels.spike_conv.conv2d import Conv2d
from st_utils.layer import ConvNorm, over_time
from st_utils.node.base import build_node
from st_utils.papers import SPIKINGRESFORMER

MOMENTUM = 0.999  # of the running firing rates


@register.attention("dssa", source=f"{SPIKINGRESFORMER}; Fancyssc/SpikingTransformerBenchmark")
class DSSA(nn.Module):
    """Dual spike self-attention: a map of spikes between patches and tokens, without separate q, k and v.

        A = neuron(c1 Y1^T X)                        [P, N] per head and step, the attention map
        output = norm(conv 1 x 1(neuron(c2 Y2 A)))   [T, B, D, H, W], as the input

    X are the input's spikes, `[d, N]` per head with N = H W tokens. Y1 and Y2, `[d, P]` per head, come from one
    convolution of X with kernel and stride `patch`, and a norm: P = (H // patch) (W // patch) patches.

    The scales keep the variance: c1 = 1 / sqrt(f_X d) and c2 = 1 / sqrt(f_A P), where f_X and f_A are the firing rates
    of X and A per head, running means over training with momentum 0.999. A rate that is 0 counts as 1: before
    training, and for a silent head. (The authors' code divides by zero there.)

    Args:
        patch: side of a patch in tokens; rows and columns that fill no patch are left out of Y1 and Y2. `none` is 1,
            or in `spikingresformer` the patch of the stage.
        legacy_length: number that replaces P in c2. The STEP benchmark has 3136, the P of a 224 x 224 image, for
            images of every size.

    Raises:
        UserError: `dim` is not a multiple of `num_heads`; `patch` is less than 1 or larger than the token grid.
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
        attn, y2 = self.spike_map(x)
        mixed = y2 @ attn * self.scale("rate_attn", attn, self.legacy_length or y2.shape[-1])  # [T, B, h, d, N]
        return self.proj(self.out_node(rearrange(mixed, "T B h d (H W) -> T B (h d) H W", H=x.shape[-2])))

    def spike_map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The attention map A, spikes `[T, B, h, P, N]`, and Y2 `[T, B, h, d, P]`."""
        height, width = x.shape[-2:]
        if min(height, width) < self.patch:
            raise UserError(f"dssa: a grid of {height} x {width} tokens has no patch of {self.patch} x {self.patch}")
        heads = {"h": self.num_heads}
        duals = over_time(self.duals, x)  # [T, B, h 2 d, H / patch, W / patch]
        y1, y2 = rearrange(duals, "T B (h y d) H W -> y T B h d (H W)", y=2, **heads)  # [T, B, h, d, P] each
        x = rearrange(x, "T B (h d) H W -> T B h d (H W)", **heads)  # [T, B, h, d, N]
        return self.attn_node(y1.transpose(-1, -2) @ x * self.scale("rate_x", x, x.shape[3])), y2

    def attention_map(self, x: Tensor) -> Matrix:
        """The matrix of an input, from tokens to patches, see `st_utils/attention/attention_map.py`."""
        attn, y2 = self.spike_map(x)
        weights = attn * self.scale("rate_attn", attn, self.legacy_length or y2.shape[-1])
        grid = tuple(x.shape[-2:])
        return Matrix(
            weights=weights.transpose(-1, -2).unsqueeze(-2),
            values=y2.transpose(-1, -2),
            grid=grid,
            key_grid=tuple(side // self.patch for side in grid),
            formula="c A, A = spikes between tokens and patches",
            cell=self.patch,
        )

    def scale(self, name: str, spikes: Tensor, terms: int) -> Tensor:
        """1 / sqrt(firing rate * terms), `[1, 1, h, 1, 1]`; in training the running rate is updated first."""
        rate = getattr(self, name)
        if self.training:
            batch = spikes.detach().abs().mean((0, 1, 3, 4), keepdim=True, dtype=rate.dtype)
            rate.copy_(MOMENTUM * torch.where(rate > 0, rate, batch) + (1 - MOMENTUM) * batch)
        return (torch.where(rate > 0, rate, 1) * terms).rsqrt()
