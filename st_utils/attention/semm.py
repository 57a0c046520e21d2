"""The spiking experts mixture: several attentions with shared keys and values, weighted per token by a router.

Example:
    import zoo
    from registry import create

    create("attention", "semm(num_expert=2)", dim=64, step=4).spec  # -> 'semm(dim=64, num_expert=2)'
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from registry import register
from st_utils.attention.attention_map import Matrix
from st_utils.attention.linear_attention import attention_matrix, linear_attention
from st_utils.errors import UserError
from st_utils.layer import ConvNorm, ConvNormNode
from st_utils.node.base import build_node
from st_utils.papers import SEMM


@register.attention("semm", source=f"{SEMM}; Fancyssc/SpikingTransformerBenchmark")
class SEMM(nn.Module):
    """Spiking experts mixture: sum over experts e of w_e * neuron(scale Q_e K^T V), w_e the router's spikes.

    `[T, B, D, H, W]` -> the same shape, then convolution 1 x 1 and norm. The experts share K and V and have their own
    Q_e. The router is neuron(norm(conv 1 x 1(x))) with one channel per expert: w_e is 0 or 1 per token and step. An
    expert is one head, whatever `num_heads` is.

    Args:
        num_expert: number of experts.
        expert_dim: channels of K and of each Q_e; `none` is dim // num_expert (96 for 384 channels, as published).
        scale: 0.125 in the authors' code, whatever `expert_dim` is.
        legacy_router: reshape the router's currents from `[experts, N]` to `[N, experts]` instead of transposing them,
            as the authors' code does: a token gets the spikes of other tokens and experts.

    Raises:
        UserError: there is no expert, or an expert has no channel.
    """

    def __init__(
        self,
        dim: int,
        step: int = 4,
        node: str = "lif",
        num_expert: int = 4,
        expert_dim: int | None = None,
        scale: float = 0.125,
        legacy_router: bool = False,
    ):
        super().__init__()
        width = dim // max(1, num_expert) if expert_dim is None else expert_dim
        if num_expert < 1 or width < 1:
            raise UserError(f"semm: num_expert={num_expert} and expert_dim={width} must be at least 1 (dim={dim})")
        self.scale, self.legacy_router = scale, legacy_router
        self.k = ConvNormNode(dim, width, node, step, bias=True)
        self.v = ConvNormNode(dim, dim, node, step, bias=True)
        self.router = ConvNormNode(dim, num_expert, node, step, bias=True)
        self.q = nn.ModuleList(ConvNormNode(dim, width, node, step, bias=True) for _ in range(num_expert))
        self.attn_nodes = nn.ModuleList(build_node(node, step, dim) for _ in range(num_expert))
        self.proj = ConvNorm(dim, dim, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        k, v = self.tokens(self.k(x)), self.tokens(self.v(x))
        mixed = 0
        for weight, query, node in zip(self.route(x).unbind(2), self.q, self.attn_nodes, strict=True):
            attended = linear_attention(self.tokens(query(x)), k, v, self.scale)  # [T, B, 1, N, D]
            spikes = node(rearrange(attended, "T B 1 (H W) d -> T B d H W", H=x.shape[-2]))
            mixed = mixed + weight.unsqueeze(2) * spikes  # [T, B, 1, H, W] * [T, B, D, H, W]
        return self.proj(mixed)

    def attention_map(self, x: Tensor) -> Matrix:
        """The matrix of each expert, before its neuron and the router's weights."""
        k, v = self.tokens(self.k(x)), self.tokens(self.v(x))
        q = torch.cat([self.tokens(query(x)) for query in self.q], 2)  # [T, B, experts, N, d]
        values = v.expand(-1, -1, len(self.q), -1, -1)
        grid = tuple(x.shape[-2:])
        return Matrix(attention_matrix(q, k, self.scale), values, grid, grid, "scale Q Kᵀ", heads="expert")

    def route(self, x: Tensor) -> Tensor:
        """The router's spikes w, `[T, B, experts, H, W]`."""
        if not self.legacy_router:
            return self.router(x)
        u = ConvNorm.forward(self.router, x)  # the currents, before the neuron
        scrambled = u.flatten(3).reshape(*u.shape[:2], -1, u.shape[2]).transpose(2, 3)  # [T, B, experts, N]
        return self.router.node(scrambled.reshape(u.shape))

    @staticmethod
    def tokens(x: Tensor) -> Tensor:
        """`[T, B, d, H, W]` -> one head, `[T, B, 1, N, d]`."""
        return rearrange(x, "T B d H W -> T B 1 (H W) d")
