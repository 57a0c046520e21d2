"""The temporal interaction module (TIM): `ssa` whose queries carry a memory of earlier time steps.

Example:
    import zoo
    from registry import create

    create("attention", "tim(alpha=0.6)", dim=64, grid=(4, 4), step=4).spec  # -> 'tim(alpha=0.6, dim=64, grid=[4, 4])'
"""

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
    """Temporal interaction module: `ssa` whose queries z mix with those of the time step before.

        z[0] = q[0]
        z[t] = out(alpha * in(conv(z[t - 1])) + (1 - alpha) * q[t])    [B, D, H, W]

    `in` and `out` are neurons. The 1-D convolution runs along the d channels of a head and has the N tokens as its
    channels: the module is built for one token grid and refuses others. (The authors' code has 4 x 4 tokens only.)

    Args:
        alpha: weight of the past, from 0 to 1.
        kernel: size of the convolution, odd.
        in_threshold, out_threshold: firing thresholds of `in` and `out`. The authors' first code says 0.3 and 0.5 by
            argument names that its neuron ignores, so that their published thresholds are 1. Then `out`, whose input
            is at most 1, never fires, and the queries are zero at every step but the first.
        tim_node: spec of `in` and `out`; `none` is `node`.
        scale: 0.25 in the authors' configuration.

    Raises:
        UserError: `alpha` or `kernel` is out of range; or the input has another token grid than `grid`.
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
        super().__init__(
            dim=dim,
            num_heads=num_heads,
            step=step,
            node=node,
            scale=scale,
            qkv_bias=qkv_bias,
            attn_threshold=attn_threshold,
            proj_bias=proj_bias,
        )
        if not 0 <= alpha <= 1:
            raise UserError(f"tim: alpha must be from 0 to 1, not {alpha}")
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(f"tim: kernel must be odd, not {kernel}")
        self.grid, self.alpha = tuple(grid), alpha
        if step > 1:  # a single step has no past
            tokens, node = grid[0] * grid[1], node if tim_node is None else tim_node
            self.interactor = nn.Conv1d(tokens, tokens, kernel, padding=kernel // 2)
            self.in_node = build_node(node, step - 1, dim, threshold=in_threshold)
            self.out_node = build_node(node, step - 1, dim, threshold=out_threshold)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().qkv(x)
        return self.interact(q), k, v

    def interact(self, q: Tensor) -> Tensor:
        """The recurrent queries z of the queries q, `[T, B, D, H, W]` -> the same shape."""
        if tuple(q.shape[-2:]) != self.grid:
            raise UserError(f"tim was built for {self.grid} tokens and got {tuple(q.shape[-2:])}: give the img_size")
        z = [q[0]]
        if self.step > 1:
            in_node, out_node = (StepByStep(node, len(q) - 1) for node in (self.in_node, self.out_node))
        for current in q[1:]:
            heads = rearrange(z[-1], "B (h d) H W -> (B h) (H W) d", h=self.num_heads)  # [B h, N, d]
            past = rearrange(self.interactor(heads), "(B h) (H W) d -> B (h d) H W", h=self.num_heads, H=self.grid[0])
            z.append(out_node(self.alpha * in_node(past) + (1 - self.alpha) * current))
        return torch.stack(z)
