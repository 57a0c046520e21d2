"""The spiking experts mixture: attentions that share keys and values, each counting where a router's spike says so."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from registry import register
from st_utils.attention.qkv import product
from st_utils.errors import UserError
from st_utils.layer import ConvNorm, ConvNormNode
from st_utils.node.base import build_node
from st_utils.papers import SEMM


@register.attention("semm", source=f"{SEMM}; Fancyssc/SpikingTransformerBenchmark")
class SEMM(nn.Module):
    """Spiking experts mixture: sum over experts e of w_e * neuron(scale Q_e K' V), w_e the router's spikes.

    `[T, B, D, H, W]` -> the same, without the neuron of the block around it. Every expert has queries of its own;
    w_e is one spike a token, neuron(norm(linear(x))) of as many channels as there are experts. `num_heads` is not
    used: an expert attends as one head.

    Args:
        num_expert: experts.
        expert_dim: channels of q and k; none is dim / num_expert (96 at 384 channels, as published).
        scale: 0.125 whatever the width (the authors' code).
        legacy_router: the authors reshape the router's currents from [experts, tokens] to [tokens, experts]
            instead of transposing them, so that a token gets the spikes of other tokens and experts.
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
        for chosen, query, node in zip(self.route(x).unbind(2), self.q, self.attn_nodes, strict=True):
            attended = product(self.tokens(query(x)), k, v, self.scale)
            spikes = node(rearrange(attended, "T B 1 (H W) d -> T B d H W", H=x.shape[-2]))
            mixed = mixed + chosen.unsqueeze(2) * spikes
        return self.proj(mixed)

    def route(self, x: Tensor) -> Tensor:
        """Spikes `[T, B, experts, H, W]`."""
        if not self.legacy_router:
            return self.router(x)
        u = ConvNorm.forward(self.router, x)
        scrambled = u.flatten(3).reshape(*u.shape[:2], -1, u.shape[2]).transpose(2, 3)
        return self.router.node(scrambled.reshape(u.shape))

    @staticmethod
    def tokens(x: Tensor) -> Tensor:
        return rearrange(x, "T B d H W -> T B 1 (H W) d")
