"""The frequency-aware token mixer of the Spiking Wavelet Transformer (SWFormer).

Example:
    import zoo
    from registry import create

    create("attention", "fatm(blocks=8)", dim=64, step=4).spec  # -> 'fatm(blocks=8, dim=64)'
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.kernels.spike_conv.conv2d import Conv2d
from st_utils.layer import over_time
from st_utils.node.base import build_node

BLOCKS = 16  # channel blocks, as published


def haar_matrix(size: int, like: Tensor) -> Tensor:
    """The orthonormal Haar matrix `[size, size]`, for a power of two; its rows go from the mean to the finest detail.

    H_1 = [1], H_2n = [kron(H_n, [1, 1]); kron(I_n, [1, -1])], then each row divided by its norm. The result has the
    dtype and device of `like`.
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
    """Frequency-aware token mixer: a learned product of Haar wavelet coefficients, plus 1 x 1 and 3 x 3 convolutions.

    `[T, B, D, H, W]` -> the same shape, the sum of three branches of the input's spikes x:

        wavelet   u = neuron(norm(H_h neuron(x H_w^T)))         Haar transform along rows, then along columns
                  w = norm(block-diagonal product of u)         `blocks` learned matrices, d x d each
                  norm(H_h^T neuron(neuron(w) H_w))             inverse transform
        point     norm(conv 1 x 1(x))                           one d x d kernel shared by all channel blocks
        local     norm(conv 3 x 3(x))                           likewise

    A token grid whose sides are no powers of two is zero-padded for the transform.

    Args:
        blocks: number of channel blocks, of d = D / blocks channels each; `none` is gcd(16, D).

    Raises:
        UserError: `dim` is not a multiple of `blocks`.
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
        by_block = x.reshape(-1, x.shape[2] // self.blocks, *x.shape[3:])  # [T B blocks, d, H, W]
        point, local = (layer(by_block).reshape(x.shape) for layer in (self.point, self.local))
        return mixed + over_time(self.point_norm, point) + over_time(self.local_norm, local)

    def mix_frequencies(self, x: Tensor) -> Tensor:
        """The wavelet branch before its last norm, `[T, B, D, H, W]` -> the same shape."""
        height, width = x.shape[-2:]
        grid = [1 << (side - 1).bit_length() for side in (height, width)]  # the next powers of two
        haar_height, haar_width = (haar_matrix(side, x) for side in grid)
        x = F.pad(x, (0, grid[1] - width, 0, grid[0] - height))
        spikes = self.node(over_time(self.forward_norm, haar_height @ self.rows_node(x @ haar_width.T)))
        product = over_time(self.product_norm, over_time(self.multiply, spikes))
        back = haar_height.T @ self.columns_node(self.back_node(product) @ haar_width)
        return back[..., :height, :width]

    def multiply(self, x: Tensor) -> Tensor:
        """The block-diagonal product y_k = sum_j x_j weight[j, k] per channel block and pixel, `[N, D, H, W]`."""
        kernel = self.weight.transpose(1, 2).reshape(x.shape[1], -1, 1, 1)  # as a grouped 1 x 1 convolution
        return F.conv2d(x, kernel, groups=self.blocks)
