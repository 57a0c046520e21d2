"""Spike codes for images, as in BrainCog's encoder: rate, phase, and time to first spike (TTFS).

Example:
    import torch
    import zoo
    from registry import create

    create("encoder", "ttfs", step=4)(torch.tensor([[[[1.0, 0.5, 0.0]]]])).flatten(1).tolist()
    # -> [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.333..., 0.0], [0.0, 0.0, 0.0]]
"""

from __future__ import annotations

import torch
from torch import Tensor

from registry import register
from st_utils.encoder.direct import Direct
from st_utils.errors import UserError

BRAINCOG = "BrainCog's Encoder, braincog/base/encoder/encoder.py; compared in the STEP benchmark, arXiv:2505.11151"


class Coded(Direct):
    """Base class of the codes: images `[B, C, H, W]` -> spikes `[T, B, C, H, W]`; event frames pass through.

    A subclass gives `encode`. No gradient goes back to the image.

    Args:
        low, high: pixel values that are coded as 0 and 1; values outside are clamped to them. Most recipes normalise
            images: a CIFAR pixel then lies between about -2 and 2.2.
        legacy_range: true does not clamp, as in BrainCog: outside low...high `ttfs` is silent, `phase` has the bits of
            the number as it is, and at `high` itself `phase` is silent.

    Raises:
        UserError: `high` is not above `low`.
    """

    def __init__(self, step: int = 4, low: float = 0.0, high: float = 1.0, legacy_range: bool = False):
        super().__init__(step)
        if not high > low:
            raise UserError(f"an encoder's high must be above its low, not {high} and {low}")
        self.low, self.high, self.legacy_range = low, high, legacy_range

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4:
            return super().forward(x)
        with torch.no_grad():
            x = (x - self.low) / (self.high - self.low)
            return self.encode(x if self.legacy_range else x.clamp(0, 1))

    def encode(self, x: Tensor) -> Tensor:
        """Spikes `[T, B, C, H, W]` of pixels `[B, C, H, W]` from 0 to 1."""
        raise NotImplementedError


@register.encoder("rate", source=BRAINCOG)
class Rate(Coded):
    """Rate code: at every step a pixel of value p spikes with probability p.

    The draws come from torch's global generator, in evaluation too: results depend on its state and on the batch.
    """

    def encode(self, x: Tensor) -> Tensor:
        return (x > torch.rand(self.step, *x.shape, dtype=x.dtype, device=x.device)).to(x.dtype)


@register.encoder("phase", source=f"Kim et al. 2018 (weighted spikes), Neurocomputing 311; {BRAINCOG}")
class Phase(Coded):
    """Phase code: step t has bit t mod 8 of the pixel's 8 bits, highest first, as a spike of height 2^-(t mod 8).

    The 8 bits are those of floor(256 p), at most 255, for a pixel of value p.
    """

    def encode(self, x: Tensor) -> Tensor:
        levels = (x * 256).long()
        levels = levels if self.legacy_range else levels.clamp(max=255)
        phase = torch.arange(self.step, device=x.device).view(-1, *[1] * x.dim()) % 8  # [T, 1, 1, 1, 1]
        return (levels >> (7 - phase) & 1).to(x.dtype) * 0.5 ** phase.to(x.dtype)


@register.encoder("ttfs", aliases=("time_to_first_spike",), source=BRAINCOG)
class TTFS(Coded):
    """Time to first spike: a pixel of value p spikes once, at step t = T - ceil(p T), with height 1 / (t + 1).

    Steps are counted from 0: the brighter a pixel, the earlier. A pixel of 0 never spikes.
    """

    def encode(self, x: Tensor) -> Tensor:
        time = torch.arange(self.step, device=x.device).view(-1, *[1] * x.dim())  # [T, 1, 1, 1, 1]
        return (time == self.step - (x * self.step).ceil()).to(x.dtype) / (time + 1)
