"""The dual temporal-channel attention of DTA-SNN, and its two halves T-XA and T-NA as attentions of their own.

Example:
    import zoo
    from registry import create

    create("attention", "dta", dim=64, step=4)
    create("attention", "txa(step_kernel=3)", dim=64, step=4).spec  # -> 'txa(dim=64, step_kernel=3)'
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from registry import register
from st_utils.attention.attention_map import Mask
from st_utils.errors import UserError
from st_utils.kernels.common.layout import in_layout_of
from st_utils.kernels.spike_conv.conv2d import Conv2d
from st_utils.layer import ConvNorm
from st_utils.layer.over_time import drop_repeated_steps
from st_utils.node.base import build_node
from st_utils.papers import DTA_SNN


@register.attention("txa", source=DTA_SNN)
class TXA(nn.Module):
    """Temporal-channel cross attention: (x + a map that mixes time steps) * (x + a map that mixes channels).

        (x + a m_t) * (x + c m_c)    [T, B, D, H, W], as x; the scalars a and c are learned
        p = mean of x over pixels    [T, B, D]
        m_t = sigmoid(conv(p))       along channels, the time steps being the convolution's channels
        m_c = sigmoid(conv(p))       along time steps, the channels being the convolution's channels

    Args:
        channel_kernel: kernel size of m_t's convolution.
        step_kernel: kernel size of m_c's convolution; 6, as in the authors' code, sees 2 steps before and 3 after.

    Raises:
        UserError: a kernel size is less than 1.
    """

    def __init__(self, dim: int, step: int = 4, channel_kernel: int = 3, step_kernel: int = 6):
        super().__init__()
        if min(channel_kernel, step_kernel) < 1:
            raise UserError(f"txa: kernels must be at least 1, not {min(channel_kernel, step_kernel)}")
        self.mix_steps = nn.Conv1d(step, step, channel_kernel, bias=False)
        self.mix_channels = nn.Conv1d(dim, dim, step_kernel, bias=False)
        self.step_scale = nn.Parameter(torch.tensor(1.0))
        self.channel_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean((-2, -1))  # [T, B, D]
        steps = _conv_same(self.mix_steps, rearrange(pooled, "T B D -> B T D"))
        channels = _conv_same(self.mix_channels, rearrange(pooled, "T B D -> B D T"))
        steps = self.step_scale * torch.sigmoid(rearrange(steps, "B T D -> T B D 1 1"))
        channels = self.channel_scale * torch.sigmoid(rearrange(channels, "B D T -> T B D 1 1"))
        return (x + steps) * (x + channels)


def _conv_same(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """Zero-padded convolution that keeps the length; an even kernel is padded by one more after than before."""
    before, after = (conv.kernel_size[0] - 1) // 2, conv.kernel_size[0] // 2
    return conv(F.pad(x, (before, after)))


@register.attention("tna", source=DTA_SNN)
class TNA(nn.Module):
    """Temporal-channel non-identical attention: a local and a global branch gate the channels of all time steps.

        x + decode(G(u) * L(u) * u)    [T, B, D, H, W], as x
        u = gelu(encode(x))            [B, T D, H, W]: time steps are channels

    encode and decode are 1 x 1 convolutions. The local branch L is a depthwise 5 x 5, a depthwise dilated (dilation 3)
    and a 1 x 1 convolution. The global branch G is the mean over pixels, a linear layer to about 16 channels (fewer
    below T D = 64: a quarter), ReLU, and a linear layer back.

    Args:
        kernel: reach of L; the dilated convolution has kernel // 3 taps, or one less where that is even. 7 gives one.

    Raises:
        UserError: `kernel` is less than 3.
    """

    DILATION = 3

    def __init__(self, dim: int, step: int = 4, kernel: int = 7):
        super().__init__()
        width, dilation = dim * step, self.DILATION
        taps = kernel // dilation
        taps -= 1 - taps % 2
        if taps < 1:
            raise UserError(f"tna: kernel must be at least {dilation}, not {kernel}")
        self.encode = Conv2d(width, width, 1)
        self.decode = Conv2d(width, width, 1)
        padding = dilation * (taps - 1) // 2
        self.local = nn.Sequential(
            Conv2d(width, width, 2 * dilation - 1, padding=dilation - 1, groups=width),
            Conv2d(width, width, taps, padding=padding, dilation=dilation, groups=width),
            Conv2d(width, width, 1),
        )
        hidden = max(1, width // max(width // 16, 4))
        self.squeeze = nn.Linear(width, hidden, bias=False)
        self.excite = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        u = F.gelu(self.encode(rearrange(x, "T B D H W -> B (T D) H W")))
        overall = self.excite(F.relu(self.squeeze(u.mean((-2, -1)))))  # [B, T D]
        y = self.decode(overall[..., None, None] * self.local(u) * u)
        return x + rearrange(y, "B (T D) H W -> T B D H W", T=len(x))


@register.attention("dta", source=DTA_SNN)
class DTA(nn.Module):
    """Dual temporal-channel attention: sigmoid(T-NA(u) T-XA(u)) * neuron(u), u the input current.

    `[T, B, D, H, W]` -> the same shape. In DTA-SNN u is the output of the stem's convolution and norm. A transformer
    block often gives spikes, whose current of 1 does not reach a LIF's threshold: there u = norm(conv 1 x 1(x)), as
    the projections of other attentions.

    Args:
        project: true computes u = norm(conv 1 x 1(x)); false takes u = x (DTA-SNN's stem).
        kernel: reach of T-NA, see `tna`.
    """

    def __init__(self, dim: int, step: int = 4, node: str = "lif", project: bool = True, kernel: int = 7):
        super().__init__()
        self.project = ConvNorm(dim, dim) if project else nn.Identity()
        self.tna = TNA(dim, step, kernel)
        self.txa = TXA(dim, step)
        self.node = build_node(node, step, dim)

    def forward(self, x: Tensor) -> Tensor:
        u = self.project(x)
        return in_layout_of(self.gate(u) * self.node(u), drop_repeated_steps(u))  # in which what follows is fast

    def attention_map(self, x: Tensor) -> Mask:
        """The gate and the spikes that it weighs; there are no heads."""
        u = self.project(x)
        gate, spikes = (each.unsqueeze(2) for each in (self.gate(u), self.node(u)))
        return Mask(gate, spikes, "gate * spikes, gate = sigmoid(T-NA T-XA)", heads="all channels")

    def gate(self, u: Tensor) -> Tensor:
        """The weights of the spikes, from 0 to 1, `[T, B, D, H, W]`."""
        return torch.sigmoid(self.tna(u) * self.txa(u))
