"""The re-parametrisable convolution of Meta-SpikeFormer's projections, and as a token mixer by itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.layer import ConvNorm, over_time

DBB = "Ding et al. 2021 (diverse branch block), arXiv:2103.13425"
META = "Yao et al. 2024 (Meta-SpikeFormer), arXiv:2404.03663; BICLab/Spike-Driven-Transformer-V2"


class RepConv(nn.Module):
    """Linear layers that merge into one convolution for inference, `[T, B, C, H, W]` -> `[T, B, C', H, W]`.

    1 x 1 convolution to `expansion` times the channels, norm, a border of the width that the depthwise
    kernel x kernel convolution takes away, that convolution, 1 x 1 convolution, norm. The border has the value that
    the first norm gives to zero, so that in evaluation all is one zero-padded convolution. With kernel=1 there
    is neither border nor depthwise convolution.

    In training the border follows the batch's statistics, as the pixels inside it do. `legacy_border` is the
    authors' form: running statistics, after the update with this batch, and no gradient through the border.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 3, expansion: float = 1.0, legacy_border: bool = False
    ):
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(f"repconv: kernel must be odd, not {kernel}")
        hidden = int(in_channels * expansion)
        if hidden < 1:
            raise UserError(f"repconv: expansion={expansion} leaves no hidden channel of {in_channels}")
        self.legacy_border = legacy_border
        self.expand = ConvNorm(in_channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, groups=hidden, bias=False) if kernel > 1 else None
        self.project = ConvNorm(hidden, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        u = over_time(self.expand.conv, x)
        y = over_time(self.expand.norm, u)
        if self.depthwise is not None:
            y = over_time(self.depthwise, self.pad(y, self.norm_of_zero(u).to(y.dtype)))
        return self.project(y)

    def pad(self, y: Tensor, value: Tensor) -> Tensor:
        """`[T, B, C, H, W]` with a border of `value`, `[C, 1, 1]`."""
        width = (self.depthwise.kernel_size[0] // 2,) * 4
        outside = 1 - F.pad(y.new_ones(y.shape[-2:]), width)
        return F.pad(y, width) + value * outside

    def norm_of_zero(self, u: Tensor) -> Tensor:
        """What the first norm, whose input u is, gives to zero: `[C, 1, 1]`."""
        norm = self.expand.norm
        if self.training and not self.legacy_border:
            variance, mean = torch.var_mean(u.to(norm.weight.dtype), (0, 1, 3, 4), correction=0)
        else:
            variance, mean = norm.running_var, norm.running_mean
        value = norm.bias - mean * norm.weight / torch.sqrt(variance + norm.eps)
        return (value.detach() if self.legacy_border else value).view(-1, 1, 1)


@register.attention("repconv", source=f"{META}; {DBB}")
class RepConvMixer(RepConv):
    """Control: no attention, but the linear 3 x 3 neighbourhood that `sdsa3` uses as its projections.

    `[T, B, D, H, W]` -> the same. With kernel=1 it is the branch before the attention in E-SpikeFormer's 83M form.
    """

    def __init__(self, dim: int, kernel: int = 3, expansion: float = 1.0, legacy_border: bool = False):
        super().__init__(dim, dim, kernel, expansion, legacy_border)
