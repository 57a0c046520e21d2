"""Spiking self-attention within windows of the token grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from registry import register
from st_utils.attention.ssa import SSA
from st_utils.errors import UserError
from st_utils.layer import over_time
from st_utils.papers import SGLFORMER

# Where token (row, column) of window (i, j) lies on the grid of n x n windows: side by side, or strided.
WINDOWS = {False: "T B D (i H) (j W) -> T (B i j) D H W", True: "T B D (H i) (W j) -> T (B i j) D H W"}


@register.attention("local_ssa", source=f"{SGLFORMER}; Fancyssc/SpikingTransformerBenchmark")
class LocalSSA(SSA):
    """`ssa` among the tokens of each of `windows` x `windows` windows, in every time step.

    A grid that does not divide is padded with zeros. windows=1 is `ssa` itself, global.

    Args:
        windows: windows along each side of the grid.
        legacy_strided: the authors' windows hold every windows-th token of the rows and columns, whole images in
            small, instead of neighbours.
        legacy_shared_qkv: the benchmark computes k and v with the convolution, norm and neuron of q (its own for
            them are never used); the neuron is not reset between, so that they differ by what its membrane kept.
        legacy_reshape: the benchmark turns `[heads, N, d]` into an image by reshaping, without putting the heads'
            channels first: heads, channels and tokens get mixed up.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        step: int = 4,
        node: str = "lif",
        windows: int = 2,
        scale: float = 0.125,
        qkv_bias: bool = False,
        proj_bias: bool = False,
        legacy_strided: bool = False,
        legacy_shared_qkv: bool = False,
        legacy_reshape: bool = False,
    ):
        if windows < 1:
            raise UserError(f"local_ssa: windows must be at least 1, not {windows}")
        super().__init__(dim, num_heads, step, node, scale, qkv_bias, proj_bias=proj_bias)
        self.windows, self.legacy_reshape = windows, legacy_reshape
        self.partition = WINDOWS[legacy_strided]
        self.legacy_shared_qkv = legacy_shared_qkv
        if legacy_shared_qkv:
            del self.k, self.v

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.windows, 0, -height % self.windows))
        grid = {"i": self.windows, "j": self.windows}
        apart = rearrange(x, self.partition, **grid)
        mixed = self.proj(self.attend(*self.qkv(apart)))
        after, before = self.partition.split(" -> ")
        return rearrange(mixed, f"{before} -> {after}", **grid)[..., :height, :width]

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.legacy_shared_qkv:
            return self.q(x), self.k(x), self.v(x)
        u = over_time(self.q.conv, x)
        thrice = torch.cat([over_time(self.q.norm, u) for _ in range(3)])  # its running statistics see all three
        return self.q.node(thrice).split(len(x))

    def merge_heads(self, x: Tensor, height: int, last: bool = False) -> Tensor:
        if not self.legacy_reshape:
            return super().merge_heads(x, height, last)
        time, batch, heads, tokens, width = x.shape
        scrambled = x.reshape(time, batch, tokens, heads, width).transpose(3, 4)
        return scrambled.reshape(time, batch, heads * width, height, -1)
