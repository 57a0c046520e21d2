"""Direct coding: every time step gets the image itself.

Example:
    import torch
    import zoo
    from registry import create

    direct = create("encoder", "direct", step=4)
    direct(torch.rand(2, 3, 32, 32)).shape  # -> torch.Size([4, 2, 3, 32, 32])
    direct(torch.rand(2, 4, 2, 32, 32)).shape  # -> torch.Size([4, 2, 2, 32, 32])
"""

from __future__ import annotations

from torch import Tensor, nn

from registry import register
from st_utils.errors import UserError
from st_utils.kernels.common.layout import to_channels_last


@register.encoder("direct", source="Rathi & Roy 2020, arXiv:2008.03658")
class Direct(nn.Module):
    """Direct coding: an image is repeated at every time step; event frames pass through.

    Images `[B, C, H, W]` or frames `[B, T, C, H, W]` -> `[T, B, C, H, W]`. An image is expanded over T without copying
    (stride 0), so that the first convolution and norm compute one step instead of T (`st_utils/layer/over_time.py`).
    On a CPU the result is channels-last in memory, which is faster for its convolutions; the layers keep it so.

    Raises:
        UserError: `step` is less than 1, the input has neither 4 nor 5 axes, or frames have T != `step`.
    """

    def __init__(self, step: int = 4):
        super().__init__()
        if step < 1:
            raise UserError(f"step must be at least 1, not {step}")
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 4:
            return _channels_last_on_cpu(x[None]).expand(self.step, *x.shape)
        if x.dim() != 5:
            raise UserError(f"input must be [B, C, H, W] or [B, T, C, H, W], not {list(x.shape)}")
        if x.shape[1] != self.step:
            raise UserError(f"the input has {x.shape[1]} frames and the model step={self.step}: make them equal")
        return _channels_last_on_cpu(x.transpose(0, 1))


def _channels_last_on_cpu(x: Tensor) -> Tensor:
    return to_channels_last(x) if x.device.type == "cpu" else x
