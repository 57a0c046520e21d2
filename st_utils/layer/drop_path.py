"""Stochastic depth (drop path).

Example:
    import torch
    from st_utils.layer.drop_path import DropPath

    DropPath(0.2)(torch.ones(4, 2, 64, 8, 8)).shape  # -> torch.Size([4, 2, 64, 8, 8])
"""

from __future__ import annotations

from torch import Tensor, nn

from st_utils.batch_share import rand_per_image
from st_utils.errors import UserError


class DropPath(nn.Module):
    """Stochastic depth: in training a sample is set to 0 at all T steps with probability `rate`, else / (1 - rate).

    `[T, B, ...]` -> the same shape. It stands at the end of a residual branch. Huang et al. 2016, arXiv:1603.09382.

    Raises:
        UserError: `rate` is negative, or 1 or more.
    """

    def __init__(self, rate: float):
        super().__init__()
        if not 0 <= rate < 1:
            raise UserError(f"drop_path must be at least 0 and below 1, not {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        keep = rand_per_image((1, x.shape[1], *[1] * (x.dim() - 2)), axis=1, device=x.device) >= self.rate
        return x * keep.to(x.dtype) / (1 - self.rate)
