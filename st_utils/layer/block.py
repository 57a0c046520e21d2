"""The transformer block: an attention and an MLP, each in a residual branch with spike or membrane shortcut.

Example:
    import torch
    import zoo
    from st_utils.layer.block import Block

    settings = {"attention": "ssa", "mlp": "mlp", "node": "lif", "shortcut": "membrane"}
    block = Block(dim=64, num_heads=4, mlp_ratio=4.0, step=4, **settings)
    block(torch.rand(4, 2, 64, 8, 8)).shape  # -> torch.Size([4, 2, 64, 8, 8])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from registry import Spec, create, entry
from st_utils.layer.drop_path import DropPath
from st_utils.node.base import build_node

Shortcut = Literal["spike", "membrane"]


class Residual(nn.Module):
    """Residual branch with one neuron, `[T, B, D, H, W]` -> the same shape.

        spike      x + neuron(branch(x))    sums of spikes run along the shortcut: integers
                                            (SEW-ResNet, arXiv:2102.04159; Spikformer)
        membrane   x + branch(neuron(x))    membrane potentials run along the shortcut, every branch sees spikes
                                            (MS-ResNet, arXiv:2112.08954; SDT)

    Args:
        branch: the layers of the branch, without its neuron.
        dim: channels D.
        node: spec of the branch's neuron.
        drop_path: stochastic depth rate of the branch.
        layer_scale: initial value of a learned factor per channel on the branch (Touvron et al. 2021,
            arXiv:2103.17239); `None` has no factor.
    """

    def __init__(
        self,
        branch: nn.Module,
        dim: int,
        node: str | Spec,
        step: int,
        shortcut: Shortcut,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
    ):
        super().__init__()
        self.shortcut = shortcut
        self.branch = branch
        self.node = build_node(node, step, dim)
        self.drop_path = DropPath(drop_path)
        self.layer_scale = None if layer_scale is None else nn.Parameter(torch.full((dim,), float(layer_scale)))

    def forward(self, x: Tensor) -> Tensor:
        y = self.node(self.branch(x)) if self.shortcut == "spike" else self.branch(self.node(x))
        if self.layer_scale is not None:
            y = y * self.layer_scale.view(-1, 1, 1)
        return x + self.drop_path(y)


class Block(nn.Sequential):
    """Transformer block: an attention and an MLP, each in a residual branch, `[T, B, D, H, W]` -> the same shape.

    Args:
        dim: channels D.
        num_heads: offered to the attention.
        mlp_ratio: hidden channels per channel in the MLP.
        attention: spec of the attention; `None` leaves the MLP only.
        mlp: spec of the MLP.
        node: spec of the neurons.
        shortcut, drop_path, layer_scale: see Residual.
        mlp_node: spec of the neurons of the MLP's branch; `None` is `node`.
        local_attention: spec of a further token mixer, in a branch before the attention, without layer_scale or
            drop_path; `None` has none.
        grid: a function that returns (rows, columns) of the token grid; it is called where an attention asks for them.
        further: arguments offered to an attention beside the usual ones, such as `patch`; an attention without them
            ignores them.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        step: int,
        attention: str | Spec | None,
        mlp: str | Spec,
        node: str | Spec,
        shortcut: Shortcut,
        drop_path: float = 0.0,
        mlp_node: str | Spec | None = None,
        local_attention: str | Spec | None = None,
        layer_scale: float | None = None,
        grid: Callable[[], tuple[int, int]] | None = None,
        further: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        mlp_node = node if mlp_node is None else mlp_node
        offer = {"dim": dim, "num_heads": num_heads, "step": step, "node": node}

        def token_mixer(spec: str | Spec) -> nn.Module:
            known = entry("attention", spec).params
            asked = {name: value for name, value in (further or {}).items() if name in known}
            if grid is not None and "grid" in known:
                asked["grid"] = grid()
            return create("attention", spec, **offer, **asked)

        residual = partial(Residual, dim=dim, step=step, shortcut=shortcut)
        if local_attention is not None:
            self.local = residual(token_mixer(local_attention), node=node)
        if attention is not None:
            self.attention = residual(token_mixer(attention), node=node, drop_path=drop_path, layer_scale=layer_scale)
        channel_mixer = create("mlp", mlp, dim=dim, mlp_ratio=mlp_ratio, step=step, node=mlp_node)
        self.mlp = residual(channel_mixer, node=mlp_node, drop_path=drop_path, layer_scale=layer_scale)
