"""The frequency-aware token mixer: a learned product between a Haar transform and its inverse."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.kernels.spike_conv.op import Conv2d
from st_utils.layer import over_time
from st_utils.node.base import build_node

BLOCKS = 16  # channel blocks, as published


def haar_matrix(size: int, like: Tensor) -> Tensor:
    """The orthonormal Haar matrix `[size, size]` of a power of two; its rows go from the mean to the finest detail.

    H_2n = [kron(H_n, [1, 1]); kron(I_n, [1, -1])], each row then divided by its length (H_1 = [1]).
    """
    rows = like.new_ones(1, 1)
    while len(rows) < size:
        details = torch.kron(torch.eye(len(rows)).to(rows), rows.new_tensor([[1.0, -1.0]]))
        rows = torch.cat([torch.kron(rows, rows.new_ones(1, 2)), details])
    return rows / rows.norm(dim=1, keepdim=True)


@register.attention(
    "fatm",
    source="Fang et al. 2024 (Spiking Wavelet Transformer), arXiv:2403.11138; Fancyssc/SpikingTransformerBenchmark",
)
class FATM(nn.Module):
    """Frequency-aware token mixer: a product of Haar coefficients, plus two convolutions of the spikes themselves.

    `[T, B, D, H, W]` -> the same, without the neuron of the block around it. With x the input, X H' the transform
    of its rows and H X that of its columns: neuron after the rows, norm and neuron after the columns, a learned
    d x d product in each of `blocks` blocks of channels, norm; back by neuron, rows, neuron, columns, norm. To
    this are added a 1 x 1 and a 3 x 3 convolution of x, each with one kernel for all blocks, and a norm. A grid
    whose sides are no powers of two is padded with zeros for the transform.

    Args:
        blocks: channel blocks of d = D / blocks channels; none is 16, or their greatest common divisor with D.
    """

    def __init__(self, dim: int, step: int = 4, node: str = "lif", blocks: int | None = None):
        super().__init__()
        self.blocks = math.gcd(BLOCKS, dim) if blocks is None else blocks
        if self.blocks < 1 or dim % self.blocks:
            raise UserError(f"fatm: dim={dim} is not a multiple of blocks={blocks}")
        width = dim // self.blocks
        self.rows_node, self.node, self.back_node, self.columns_node = (build_node(node, step, dim) for _ in range(4))
        self.weight = nn.Parameter(0.02 * torch.randn(self.blocks, width, width))
        self.point, self.local = Conv2d(width, width, 1), Conv2d(width, width, 3, padding=1)
        norms = (nn.BatchNorm2d(dim) for _ in range(5))
        self.forward_norm, self.product_norm, self.inverse_norm, self.point_norm, self.local_norm = norms

    def forward(self, x: Tensor) -> Tensor:
        mixed = over_time(self.inverse_norm, self.mix_frequencies(x))
        by_block = x.reshape(-1, x.shape[2] // self.blocks, *x.shape[3:])
        point, local = (layer(by_block).reshape(x.shape) for layer in (self.point, self.local))
        return mixed + over_time(self.point_norm, point) + over_time(self.local_norm, local)

    def mix_frequencies(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        grid = [1 << (side - 1).bit_length() for side in (height, width)]
        columns, rows = (haar_matrix(side, x) for side in grid)
        x = F.pad(x, (0, grid[1] - width, 0, grid[0] - height))
        spikes = self.node(over_time(self.forward_norm, columns @ self.rows_node(x @ rows.T)))
        product = over_time(self.product_norm, over_time(self.multiply, spikes))
        back = columns.T @ self.columns_node(self.back_node(product) @ rows)
        return back[..., :height, :width]

    def multiply(self, x: Tensor) -> Tensor:
        """`[N, D, H, W]`: in each block of channels out_k = sum_d in_d weight[d, k], a grouped 1 x 1 convolution."""
        kernel = self.weight.transpose(1, 2).reshape(x.shape[1], -1, 1, 1)
        return F.conv2d(x, kernel, groups=self.blocks)
