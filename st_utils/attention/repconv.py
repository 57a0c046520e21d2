"""The re-parametrisable convolution of Meta-SpikeFormer's projections, and as a token mixer by itself."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.kernels.spike_conv.op import Conv2d
from st_utils.layer import ConvNorm, over_time
from st_utils.layer.fold_norms import fold_norm
from st_utils.node.base import build_node

DBB = "Ding et al. 2021 (diverse branch block), arXiv:2103.13425"
META = "Yao et al. 2024 (Meta-SpikeFormer), arXiv:2404.03663; BICLab/Spike-Driven-Transformer-V2"


class RepConv(nn.Module):
    """Linear layers that merge into one convolution for inference, `[T, B, C, H, W]` -> `[T, B, C', H, W]`.

    1 x 1 convolution to `expansion` times the channels, norm, a border of the width that the depthwise
    kernel x kernel convolution takes away, that convolution, 1 x 1 convolution, norm; with `outer_norm` a further
    norm and with `node` a neuron. The border has the value that the first norm gives to zero, so that in
    evaluation all is one zero-padded convolution. With kernel=1 there is neither border nor depthwise convolution.

    `legacy_training` is the authors' form in training; evaluation is the same. They give the border the value for
    the running statistics (those after the update with this batch) and let no gradient through it; here it follows
    the batch's, as the pixels inside do. And where no spike at all comes in, as happens behind attention over few
    tokens, each norm multiplies the gradient by up to 1 / sqrt(eps): 3e7 a projection, and float32 ends within a
    few blocks. Here the norms of such an input pass it on as it is.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        expansion: float = 1.0,
        legacy_training: bool = False,
        outer_norm: bool = False,
        node: str | None = None,
        step: int = 4,
    ):
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(f"repconv: kernel must be odd, not {kernel}")
        hidden = int(in_channels * expansion)
        if hidden < 1:
            raise UserError(f"repconv: expansion={expansion} leaves no hidden channel of {in_channels}")
        self.legacy_training = legacy_training
        self.expand = ConvNorm(in_channels, hidden)
        self.depthwise = Conv2d(hidden, hidden, kernel, groups=hidden, bias=False) if kernel > 1 else None
        self.project = ConvNorm(hidden, out_channels)
        self.norm = nn.BatchNorm2d(out_channels) if outer_norm else None
        self.node = build_node(node, step, out_channels) if node is not None else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        calm = self.calmer(x)
        u = calm(over_time(self.expand.conv, x))
        y = over_time(self.expand.norm, u)
        if self.depthwise is not None:
            y = over_time(self.depthwise, self.pad(y, self.norm_of_zero(u).to(y.dtype)))
        y = over_time(self.project.norm, calm(over_time(self.project.conv, y)))
        if self.norm is not None:
            y = over_time(self.norm, calm(y))
        return self.node(y)

    def fold_norms(self) -> None:
        """See st_utils.layer.fold_norms."""
        self.expand.fold_norms()
        self.project.fold_norms()
        self.norm = None if self.norm is None else fold_norm(self.project.conv, self.norm)

    def calmer(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """What stands before each norm: nothing, or, where x is all zero, 1 / the norm's factor on the gradient."""
        if not self.training or self.legacy_training:
            return lambda u: u
        factor = torch.where(x.any(), 1.0, math.sqrt(self.expand.norm.eps))
        return lambda u: _ScaleGradient.apply(u, factor)

    def pad(self, y: Tensor, value: Tensor) -> Tensor:
        """`[T, B, C, H, W]` with a border of `value`, `[C, 1, 1]`."""
        width = (self.depthwise.kernel_size[0] // 2,) * 4
        outside = 1 - F.pad(y.new_ones(y.shape[-2:]), width)
        return F.pad(y, width) + value * outside

    def norm_of_zero(self, u: Tensor) -> Tensor:
        """What the first norm, whose input u is, gives to zero: `[C, 1, 1]`."""
        norm = self.expand.norm
        if isinstance(norm, nn.Identity):  # folded
            return self.expand.conv.bias.view(-1, 1, 1)
        if self.training and not self.legacy_training:
            variance, mean = torch.var_mean(u.to(norm.weight.dtype), (0, 1, 3, 4), correction=0)
        else:
            variance, mean = norm.running_var, norm.running_mean
        value = norm.bias - mean * norm.weight / torch.sqrt(variance + norm.eps)
        return (value.detach() if self.legacy_training else value).view(-1, 1, 1)


class _ScaleGradient(torch.autograd.Function):
    """x as it is; its gradient times a number."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, factor: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (factor,) = ctx.saved_tensors
        return grad * factor, None


@register.attention("repconv", source=f"{META}; {DBB}")
class RepConvMixer(RepConv):
    """Control: no attention, but the linear 3 x 3 neighbourhood that `sdsa3` uses as its projections.

    `[T, B, D, H, W]` -> the same. With kernel=1 it is the branch before the attention in E-SpikeFormer's 83M form.
    """

    def __init__(self, dim: int, kernel: int = 3, expansion: float = 1.0, legacy_training: bool = False):
        super().__init__(dim, dim, kernel, expansion, legacy_training)
