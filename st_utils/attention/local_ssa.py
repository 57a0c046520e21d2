"""Local spiking self-attention of SGLFormer: `ssa` within windows of the token grid.

Example:
    import zoo
    from registry import create

    create("attention", "local_ssa(windows=4)", dim=64, num_heads=8, step=4).spec  # -> 'local_ssa(dim=64, windows=4)'
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from registry import register
from st_utils.attention.attention_map import Matrix
from st_utils.attention.ssa import SSA
from st_utils.errors import UserError
from st_utils.layer import over_time
from st_utils.papers import SGLFORMER

# legacy_strided -> how a grid of tokens splits into windows (i, j): contiguous, or every windows-th row and column
WINDOWS = {False: "T B D (i H) (j W) -> T (B i j) D H W", True: "T B D (H i) (W j) -> T (B i j) D H W"}


@register.attention("local_ssa", source=f"{SGLFORMER}; Fancyssc/SpikingTransformerBenchmark")
class LocalSSA(SSA):
    """Local spiking self-attention: `ssa` within each of windows x windows windows of the token grid.

    `[T, B, D, H, W]` -> the same shape. A grid that does not divide is zero-padded. `windows=1` is `ssa` itself.

    Args:
        windows: number of windows along each side of the grid.
        legacy_strided: a window holds every windows-th token of the rows and columns, as in the authors' code, so
            that it spans the whole image; false takes neighbouring tokens.
        legacy_shared_qkv: k and v are computed by the convolution, norm and neuron of q, as in the STEP benchmark. The
            neuron is not reset in between: q, k and v differ by the membrane potential that it starts from.
        legacy_reshape: heads are merged by reshaping `[h, N, d]` without transposing first, as in the STEP benchmark:
            heads, tokens and channels are mixed up.

    Raises:
        UserError: `windows` is less than 1.
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
        super().__init__(
            dim=dim, num_heads=num_heads, step=step, node=node, scale=scale, qkv_bias=qkv_bias, proj_bias=proj_bias
        )
        self.windows, self.legacy_reshape = windows, legacy_reshape
        self.partition = WINDOWS[legacy_strided]
        self.legacy_shared_qkv = legacy_shared_qkv
        if legacy_shared_qkv:
            del self.k, self.v

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        mixed = self.proj(self.attend(*self.qkv(self.split_windows(x))))
        whole, split = self.partition.split(" -> ")
        return rearrange(mixed, f"{split} -> {whole}", i=self.windows, j=self.windows)[..., :height, :width]

    def split_windows(self, x: Tensor) -> Tensor:
        """`[T, B, D, H, W]`, zero-padded -> `[T, B i j, D, H / windows, W / windows]`."""
        height, width = x.shape[-2:]
        x = F.pad(x, (0, -width % self.windows, 0, -height % self.windows))
        return rearrange(x, self.partition, i=self.windows, j=self.windows)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self.legacy_shared_qkv:
            return self.q(x), self.k(x), self.v(x)
        u = over_time(self.q.conv, x)
        thrice = torch.cat([over_time(self.q.norm, u) for _ in range(3)])  # [3 T, B, D, H, W]; updates the norm 3 times
        return self.q.node(thrice).split(len(x))

    def attention_map(self, x: Tensor) -> Matrix:
        """The matrix over the padded grid: 0 between tokens of different windows."""
        height, width = (-(-side // self.windows) * self.windows for side in x.shape[-2:])
        tokens = torch.arange(height * width, device=x.device).view(1, 1, 1, height, width)
        of_window = rearrange(tokens, self.partition, i=self.windows, j=self.windows)[0].flatten(
            1
        )  # [i j, N of a window]
        q, k, v = (self.split_heads(spikes) for spikes in self.qkv(self.split_windows(x)))
        inside = self.matrix(q, k, height).squeeze(-2).unflatten(1, (x.shape[1], -1))  # [T, B, i j, h, n, n]
        inside, v = inside.movedim(2, 3), v.unflatten(1, (x.shape[1], -1)).movedim(2, 3)  # [T, B, h, i j, n, ...]
        weights = inside.new_zeros(*inside.shape[:3], height * width, height * width)
        weights[..., of_window[:, :, None], of_window[:, None]] = inside
        values = torch.empty_like(v.flatten(3, 4))
        values[..., of_window, :] = v
        grid = (height, width)
        return Matrix(weights.unsqueeze(-2), values, grid, grid, "scale Q Kᵀ within a window")

    def merge_heads(self, x: Tensor, height: int, last: bool = False) -> Tensor:
        if not self.legacy_reshape:
            return super().merge_heads(x, height, last)
        time, batch, heads, tokens, width = x.shape
        scrambled = x.reshape(time, batch, tokens, heads, width).transpose(3, 4)  # [T, B, N, d, h]
        return scrambled.reshape(time, batch, heads * width, height, -1)  # [T, B, D, H, W]
