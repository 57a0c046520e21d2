"""The temporal interaction module: queries that remember the steps before."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from registry import register
from st_utils.attention.ssa import SSA
from st_utils.errors import UserError
from st_utils.node.base import StepByStep, build_node


@register.attention("tim", source="Shen et al. 2024 (TIM), arXiv:2401.11687; Fancyssc/SpikingTransformerBenchmark")
class TIM(SSA):
    """`ssa` of queries that mix with the past: z[t] = out(alpha in(conv(z[t - 1])) + (1 - alpha) q[t]), z[0] = q[0].

    `in` and `out` are neurons. The convolution has the tokens as channels and runs over the channels of
    a head, so that it is for one size of the token grid (of any size, where the authors' code has 4 x 4 alone).

    Args:
        grid: rows and columns of the tokens; the model offers it.
        alpha: part of the past.
        kernel: of the convolution, odd.
        in_threshold, out_threshold: of the two neurons. 0.3 and 0.5 are what the authors' first code names, in words
            that its neuron ignores: the published thresholds are 1, where `out`, whose input is at most 1, never
            fires and the queries of every step but the first are silent.
        tim_node: the two neurons, where they differ from `node`.
        scale: 0.25 in the authors' configuration.
    """

    def __init__(
        self,
        dim: int,
        grid: tuple[int, int],
        num_heads: int = 8,
        step: int = 4,
        node: str = "lif",
        alpha: float = 0.5,
        kernel: int = 5,
        in_threshold: float = 0.3,
        out_threshold: float = 0.5,
        tim_node: str | None = None,
        scale: float = 0.25,
        qkv_bias: bool = False,
        attn_threshold: float = 0.5,
        proj_bias: bool = False,
    ):
        super().__init__(dim, num_heads, step, node, scale, qkv_bias, attn_threshold, proj_bias)
        if not 0 <= alpha <= 1:
            raise UserError(f"tim: alpha must be from 0 to 1, not {alpha}")
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(f"tim: kernel must be odd, not {kernel}")
        self.grid, self.alpha = tuple(grid), alpha
        if step > 1:  # a single step has none before it
            tokens, node = grid[0] * grid[1], node if tim_node is None else tim_node
            self.interactor = nn.Conv1d(tokens, tokens, kernel, padding=kernel // 2)
            self.in_node = build_node(node, step - 1, dim, threshold=in_threshold)
            self.out_node = build_node(node, step - 1, dim, threshold=out_threshold)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().attend(self.interact(q), k, v)

    def interact(self, q: Tensor) -> Tensor:
        """Queries with their past, `[T, B, D, H, W]` -> the same."""
        if tuple(q.shape[-2:]) != self.grid:
            raise UserError(f"tim was built for {self.grid} tokens and got {tuple(q.shape[-2:])}: give the img_size")
        z = [q[0]]
        if self.step > 1:
            take_in, give_out = (StepByStep(node, len(q) - 1) for node in (self.in_node, self.out_node))
        for current in q[1:]:
            heads = rearrange(z[-1], "B (h d) H W -> (B h) (H W) d", h=self.num_heads)
            past = rearrange(self.interactor(heads), "(B h) (H W) d -> B (h d) H W", h=self.num_heads, H=self.grid[0])
            z.append(give_out(self.alpha * take_in(past) + (1 - self.alpha) * current))
        return torch.stack(z)
