"""Spatial-temporal attention (STAtten): attention over the tokens of several time steps at once.

Example:
    import zoo
    from registry import create

    create("attention", "statten(chunk=4)", dim=64, num_heads=8, step=4).spec  # -> 'statten(chunk=4, dim=64)'
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from registry import register
from st_utils.attention.qkv import QKVAttention
from st_utils.errors import UserError
from st_utils.layer import max_3x3


@register.attention("statten", source="Lee et al. 2025 (STAtten), arXiv:2409.19764; MarcoCrisafulli5/STAtten")
class STAtten(QKVAttention):
    """Spatial-temporal attention: neuron(scale Q K^T V) over the tokens of `chunk` consecutive time steps together.

    A token attends to the tokens of all steps in its chunk, later ones included: there is no causal mask. The scale is
    1 / H, with H the rows of the token grid.

    Args:
        chunk: time steps per chunk; `step` must be a multiple of it.
        events: the authors' form for event data. Q, K, V and the input are max-pooled over 3 x 3 tokens, the scale is
            1 / (H^2 chunk), and the result is proj(a p + p) with a the attention's spikes and p the pooled input.

    Raises:
        UserError: `step` is not a multiple of `chunk`.
    """

    formula = "scale Q Kᵀ over the steps of a chunk"

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
        super().__init__(dim=dim, num_heads=num_heads, step=step, node=node, qkv_bias=qkv_bias)
        self.chunk, self.events = chunk, events

    def forward(self, x: Tensor) -> Tensor:
        if not self.events:
            return super().forward(x)
        pooled = max_3x3(x)
        return self.proj(self.attend(*self.qkv(x)) * pooled + pooled)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        spikes = super().qkv(x)
        return tuple(max_3x3(each) for each in spikes) if self.events else spikes

    def mix(self, q: Tensor, k: Tensor, v: Tensor, height: int) -> Tensor:
        q, k, v = (self.join_steps(x) for x in (q, k, v))
        mixed = q @ (k.transpose(-1, -2) @ v * self.scale(height))
        return rearrange(mixed, "n B h (c N) d -> (n c) B h N d", c=self.chunk)

    def matrix(self, q: Tensor, k: Tensor, height: int) -> Tensor:
        products = self.join_steps(q) @ self.join_steps(k).transpose(-1, -2) * self.scale(height)
        return rearrange(products, "n B h (c N) (s M) -> (n c) B h N s M", c=self.chunk, s=self.chunk)

    def join_steps(self, x: Tensor) -> Tensor:
        """The tokens of each chunk's steps as one axis, `[T, B, h, N, d]` -> `[T / chunk, B, h, chunk N, d]`."""
        return rearrange(x, "(n c) B h N d -> n B h (c N) d", c=self.chunk)

    def scale(self, height: int) -> float:
        """The factor on Q K^T V, for a grid of `height` rows."""
        return 1 / (height * height * self.chunk) if self.events else 1 / height
