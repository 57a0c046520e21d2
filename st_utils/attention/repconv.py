"""The re-parameterisable convolution (RepConv) of Meta-SpikeFormer's projections, and as a token mixer by itself.

Example:
    import zoo
    from registry import create

    create("attention", "repconv(kernel=1)", dim=64).spec  # -> 'repconv(dim=64, kernel=1)'
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.kernels.spike_conv.conv2d import Conv2d
from st_utils.layer import ConvNorm, over_time
from st_utils.layer.fold_norms import fold_norm
from st_utils.node.base import build_node

DBB = "Ding et al. 2021 (diverse branch block), arXiv:2103.13425"
META = "Yao et al. 2024 (Meta-SpikeFormer), arXiv:2404.03663; BICLab/Spike-Driven-Transformer-V2"


class RepConv(nn.Module):
    """Linear layers that merge into one convolution for inference, `[T, B, C, H, W]` -> `[T, B, C', H, W]`.

        convolution 1 x 1           C -> expansion * C channels
        norm
        padding, depthwise k x k    the padding's value is the norm of 0, not 0; both are absent for kernel=1
        convolution 1 x 1           -> C' channels
        norm
        norm                        with outer_norm
        neuron                      with node

    Padding with the norm of 0 makes the whole equal to one zero-padded k x k convolution in evaluation.

    Args:
        kernel: k, odd.
        expansion: hidden channels per input channel.
        legacy_training: train as the authors' code does; evaluation is the same. There (1) the padding has the norm
            of 0 by the running statistics after this batch's update, without gradient; here it is by the batch's
            statistics, as the pixels inside are. (2) An input without any spike, as attention over few tokens can
            give, makes each norm multiply the gradient by up to 1 / sqrt(eps), 3e7 over the three norms of a
            projection, and float32 overflows within a few blocks; here the gradient passes such norms unchanged.
        outer_norm: add a norm at the end.
        node: spec of a neuron at the end; `None` adds none.

    Raises:
        UserError: `kernel` is even or less than 1, or `expansion` leaves no hidden channel.
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
        guard = self.gradient_guard(x)
        u = guard(over_time(self.expand.conv, x))
        y = over_time(self.expand.norm, u)
        if self.depthwise is not None:
            y = over_time(self.depthwise, self.pad(y, self.norm_of_zero(u).to(y.dtype)))
        y = over_time(self.project.norm, guard(over_time(self.project.conv, y)))
        if self.norm is not None:
            y = over_time(self.norm, guard(y))
        return self.node(y)

    def fold_norms(self) -> None:
        """Fold the norms into the convolutions before them, see `st_utils/layer/fold_norms.py`."""
        self.expand.fold_norms()
        self.project.fold_norms()
        self.norm = None if self.norm is None else fold_norm(self.project.conv, self.norm)

    def gradient_guard(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """A function for the input of each norm: where x is all zero it multiplies the gradient by sqrt(eps).

        That cancels the norm's own factor 1 / sqrt(variance + eps) at variance 0. Outside training, and with
        `legacy_training`, it is the identity.
        """
        if not self.training or self.legacy_training:
            return lambda u: u
        factor = torch.where(x.any(), 1.0, math.sqrt(self.expand.norm.eps))
        return lambda u: _ScaleGradient.apply(u, factor)

    def pad(self, y: Tensor, value: Tensor) -> Tensor:
        """`[T, B, C, H, W]` padded by kernel // 2 on each side with `value`, `[C, 1, 1]`."""
        width = (self.depthwise.kernel_size[0] // 2,) * 4
        outside = 1 - F.pad(y.new_ones(y.shape[-2:]), width)
        return F.pad(y, width) + value * outside

    def norm_of_zero(self, u: Tensor) -> Tensor:
        """The first norm's output for an input of 0, `[C, 1, 1]`; u `[T, B, C, H, W]` is the norm's present input."""
        norm = self.expand.norm
        if isinstance(norm, nn.Identity):  # folded: the convolution's bias is the norm of 0
            return self.expand.conv.bias.view(-1, 1, 1)
        if self.training and not self.legacy_training:
            variance, mean = torch.var_mean(u.to(norm.weight.dtype), (0, 1, 3, 4), correction=0)
        else:
            variance, mean = norm.running_var, norm.running_mean
        value = norm.bias - mean * norm.weight / torch.sqrt(variance + norm.eps)
        return (value.detach() if self.legacy_training else value).view(-1, 1, 1)


class _ScaleGradient(torch.autograd.Function):
    """x unchanged; its gradient is multiplied by `factor`."""

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
    """Control: no attention, one re-parameterisable 3 x 3 convolution, as `sdsa3` has it for q, k, v and output.

    `[T, B, D, H, W]` -> the same shape. With kernel=1 it is the branch before the attention in E-SpikeFormer's 83M
    form.

    Args:
        kernel, expansion, legacy_training: see `RepConv`.
    """

    def __init__(self, dim: int, kernel: int = 3, expansion: float = 1.0, legacy_training: bool = False):
        super().__init__(dim, dim, kernel, expansion, legacy_training)
