"""The dual temporal-channel attention of DTA-SNN and its two halves, for any number of steps and channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.kernels.spike_conv.op import Conv2d
from st_utils.layer import ConvNorm
from st_utils.node.base import build_node
from st_utils.papers import DTA_SNN


@register.attention("txa", source=DTA_SNN)
class TXA(nn.Module):
    """Temporal-channel cross attention: (x + a m_t) (x + c m_c), maps of steps and channels added to x and multiplied.

    `[T, B, D, H, W]` -> the same. With p the mean of x over pixels, m_t = sigmoid(convolution of p along channels,
    steps mixed) and m_c = sigmoid(convolution of p along steps, channels mixed); a and c are learned numbers.

    Args:
        channel_kernel: of the first convolution, in channels.
        step_kernel: of the second, in steps: 6 sees 2 steps before and 3 after, as in the authors' code.
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
        pooled = x.mean((-2, -1))
        steps = _same(self.mix_steps, rearrange(pooled, "T B D -> B T D"))
        channels = _same(self.mix_channels, rearrange(pooled, "T B D -> B D T"))
        steps = self.step_scale * torch.sigmoid(rearrange(steps, "B T D -> T B D 1 1"))
        channels = self.channel_scale * torch.sigmoid(rearrange(channels, "B D T -> T B D 1 1"))
        return (x + steps) * (x + channels)


def _same(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """The convolution with zeros at both ends, so that the length stays; one more after than before if uneven."""
    before, after = (conv.kernel_size[0] - 1) // 2, conv.kernel_size[0] // 2
    return conv(F.pad(x, (before, after)))


@register.attention("tna", source=DTA_SNN)
class TNA(nn.Module):
    """Temporal-channel non-identical attention: x + decode(G L u) of all steps' channels, u = gelu(encode(x)).

    `[T, B, D, H, W]` -> the same. Encode and decode are 1 x 1 convolutions over the T D channels of all steps
    together. L is local: depthwise 5 x 5, depthwise dilated by 3, 1 x 1; G global: the mean over pixels through a
    bottleneck of about 16.

    Args:
        kernel: how far L reaches: the dilated convolution has kernel // 3 taps, made odd; 7 gives one tap.
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
        reach = dilation * (taps - 1) // 2
        self.local = nn.Sequential(
            Conv2d(width, width, 2 * dilation - 1, padding=dilation - 1, groups=width),
            Conv2d(width, width, taps, padding=reach, dilation=dilation, groups=width),
            Conv2d(width, width, 1),
        )
        hidden = max(1, width // max(width // 16, 4))
        self.squeeze = nn.Linear(width, hidden, bias=False)
        self.excite = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        u = F.gelu(self.encode(rearrange(x, "T B D H W -> B (T D) H W")))
        overall = self.excite(F.relu(self.squeeze(u.mean((-2, -1)))))
        y = self.decode(overall[..., None, None] * self.local(u) * u)
        return x + rearrange(y, "B (T D) H W -> T B D H W", T=len(x))


@register.attention("dta", source=DTA_SNN)
class DTA(nn.Module):
    """Dual temporal-channel attention: sigmoid(T-NA(u) T-XA(u)) times the spikes of u, u membrane input currents.

    `[T, B, D, H, W]` -> the same. In DTA-SNN u is what the stem's convolution and norm give, and the spikes are its
    neuron's. A transformer's block gives one tensor, often spikes already, from which a neuron would not fire: there
    a 1 x 1 convolution and norm first make u of it, as the projections of other attentions do.

    Args:
        project: put that convolution and norm before; false takes the tensor itself as u (DTA-SNN's stem).
        kernel: of T-NA, see `tna`.
    """

    def __init__(self, dim: int, step: int = 4, node: str = "lif", project: bool = True, kernel: int = 7):
        super().__init__()
        self.project = ConvNorm(dim, dim) if project else nn.Identity()
        self.tna = TNA(dim, step, kernel)
        self.txa = TXA(dim, step)
        self.node = build_node(node, step, dim)

    def forward(self, x: Tensor) -> Tensor:
        u = self.project(x)
        return self.gate(u) * self.node(u)

    def gate(self, u: Tensor) -> Tensor:
        """What the spikes are weighed with, 0 to 1."""
        return torch.sigmoid(self.tna(u) * self.txa(u))
