"""The residual block, in the field's two styles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from registry import Spec, create, entry
from st_utils.layer.drop_path import DropPath
from st_utils.node.base import build_node

Shortcut = Literal["spike", "membrane"]


class Residual(nn.Module):
    """A branch with its one neuron and its shortcut, `[T, B, D, H, W]` -> the same.

    spike: x + neuron(branch(x)); spikes are added, so integers run along the shortcut (SEW-ResNet,
    arXiv:2102.04159; Spikformer). membrane: x + branch(neuron(x)); membrane potentials are added, and every
    branch sees spikes (MS-ResNet, arXiv:2112.08954; SDT). With `layer_scale` a learned factor a channel, which
    starts there, weighs what is added (Touvron et al. 2021, arXiv:2103.17239).
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
    """An attention and an MLP, each in its residual branch, `[T, B, D, H, W]` -> the same.

    Args:
        attention: none leaves an MLP alone.
        local_attention: one more token mixer, in a branch before the attention's, without scale or drop path.
        grid: gives the rows and columns of the tokens, for attentions that ask for them.
        further: arguments for attentions that have them and whose spec leaves them open.
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

        def mixer(spec: str | Spec) -> nn.Module:
            known = entry("attention", spec).params
            asked = {name: value for name, value in (further or {}).items() if name in known}
            if grid is not None and "grid" in known:
                asked["grid"] = grid()
            return create("attention", spec, **offer, **asked)

        if local_attention is not None:
            self.local = Residual(mixer(local_attention), dim, node, step, shortcut)
        if attention is not None:
            self.attention = Residual(mixer(attention), dim, node, step, shortcut, drop_path, layer_scale)
        channels = create("mlp", mlp, dim=dim, mlp_ratio=mlp_ratio, step=step, node=mlp_node)
        self.mlp = Residual(channels, dim, mlp_node, step, shortcut, drop_path, layer_scale)
