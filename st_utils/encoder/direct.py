"""Direct coding: every time step sees the image as it is."""

from __future__ import annotations

from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.kernels.common.layout import to_channels_last


@register.encoder("direct", source="Rathi & Roy 2020, arXiv:2008.03658")
class Direct(nn.Module):
    """`[B, C, H, W]` images repeated `step` times, or `[B, T, C, H, W]` frames, as `[T, B, C, H, W]`.

    The steps of an image are one in memory, so that what sees it first computes once (see over_time). On a CPU the
    channels lie last in memory: its convolutions want them so, and every layer keeps the order that it finds.

    Raises UserError when frames do not number `step`.
    """

    def __init__(self, step: int = 4):
        super().__init__()
        if step < 1:
            raise UserError(f"step must be at least 1, not {step}")
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 4:
            return _ordered(x[None]).expand(self.step, *x.shape)
        if x.dim() != 5:
            raise UserError(f"input must be [B, C, H, W] or [B, T, C, H, W], not {list(x.shape)}")
        if x.shape[1] != self.step:
            raise UserError(f"the input has {x.shape[1]} frames and the model step={self.step}: make them equal")
        return _ordered(x.transpose(0, 1))


def _ordered(x: Tensor) -> Tensor:
    return to_channels_last(x) if x.device.type == "cpu" else x
