"""Spatial-temporal attention in blocks of time steps."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from registry import register
from st_utils.attention.qkv import QKVAttention
from st_utils.errors import UserError
from st_utils.layer import max_3x3


@register.attention("statten", source="Lee et al. 2025 (STAtten), arXiv:2409.19764; MarcoCrisafulli5/STAtten")
class STAtten(QKVAttention):
    """Q (K' V) over the tokens of `chunk` consecutive steps at once: every token sees its chunk's other steps.

    Args:
        chunk: steps in a block; `step` must be a multiple of it. No causal mask within a block.
        events: the form for event data: q, k, v and the shortcut are max-pooled over 3 x 3 pixels, the scale
            is 1 / (H^2 chunk) instead of 1 / H (H the rows of the token grid), and the attention's spikes a
            gate the pooled input p: a p + p.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        step: int = 4,
        node: str = "lif",
        chunk: int = 2,
        events: bool = False,
        qkv_bias: bool = False,
    ):
        if chunk < 1 or step % chunk:
            raise UserError(f"statten: step={step} is not a multiple of chunk={chunk}")
        super().__init__(dim, num_heads, step, node, qkv_bias)
        self.chunk, self.events = chunk, events

    def forward(self, x: Tensor) -> Tensor:
        if not self.events:
            return super().forward(x)
        pooled = max_3x3(x)
        spikes = self.attend(*(max_3x3(project(x)) for project in (self.q, self.k, self.v)))
        return self.proj(spikes * pooled + pooled)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, height: int) -> Tensor:
        q, k, v = (rearrange(x, "(n c) B h N d -> n B h (c N) d", c=self.chunk) for x in (q, k, v))
        scale = 1 / (height * height * self.chunk) if self.events else 1 / height
        mixed = q @ (k.transpose(-1, -2) @ v * scale)
        return rearrange(mixed, "n B h (c N) d -> (n c) B h N d", c=self.chunk)
