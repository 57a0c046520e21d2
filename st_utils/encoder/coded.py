"""The codes of BrainCog's encoder for images: rate, phase, and time to first spike."""

from __future__ import annotations

import torch
from torch import Tensor

from registry import register
from st_utils.encoder.direct import Direct
from st_utils.errors import UserError

BRAINCOG = "BrainCog's Encoder, braincog/base/encoder/encoder.py; compared in the STEP benchmark, arXiv:2505.11151"


class Coded(Direct):
    """Images `[B, C, H, W]` as spikes `[T, B, C, H, W]`; event frames are spikes already and pass through.

    Args:
        low, high: the pixel values that stand for 0 and 1; what lies beyond is taken for these. Images are
            normalised by most recipes: a CIFAR image then lies within about -2 and 2.2.
        legacy_range: what lies beyond goes into the formulas as it is, as in BrainCog: `ttfs` is silent there, and
            `phase` has bits of other numbers, none for 1.

    Raises UserError when `high` is not above `low`.
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
        """Spikes `[T, ...]` of values between 0 and 1, `[...]`."""
        raise NotImplementedError


@register.encoder("rate", source=BRAINCOG)
class Rate(Coded):
    """Rate code: in every step a pixel spikes with a probability of its value, drawn from torch's generator.

    Evaluation draws too, so that its results depend on the generator's state and on the batch.
    """

    def encode(self, x: Tensor) -> Tensor:
        return (x > torch.rand(self.step, *x.shape, dtype=x.dtype, device=x.device)).to(x.dtype)


@register.encoder("phase", source=f"Kim et al. 2018 (weighted spikes), Neurocomputing 311; {BRAINCOG}")
class Phase(Coded):
    """Phase code: step t has bit t of the pixel's 8, the highest first, as a spike of 2^-t; then from the first again.

    The 8 bits are those of floor(256 x), at most 255.
    """

    def encode(self, x: Tensor) -> Tensor:
        levels = (x * 256).long()
        levels = levels if self.legacy_range else levels.clamp(max=255)
        phase = torch.arange(self.step, device=x.device).view(-1, *[1] * x.dim()) % 8
        return (levels >> (7 - phase) & 1).to(x.dtype) * 0.5 ** phase.to(x.dtype)


@register.encoder("ttfs", aliases=("time_to_first_spike",), source=BRAINCOG)
class TTFS(Coded):
    """Time to first spike: a pixel spikes once, the brighter the earlier, and step t's spikes are 1 / (t + 1) high.

    The step is T - ceil(x T), counted from 0; a pixel of 0 never spikes.
    """

    def encode(self, x: Tensor) -> Tensor:
        time = torch.arange(self.step, device=x.device).view(-1, *[1] * x.dim())
        return (time == self.step - (x * self.step).ceil()).to(x.dtype) / (time + 1)
