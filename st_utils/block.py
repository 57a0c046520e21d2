"""The residual block, in the field's two styles."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from registry import Spec, create
from st_utils.layer import DropPath
from st_utils.node.base import build_node

Shortcut = Literal["spike", "membrane"]


class Residual(nn.Module):
    """A branch with its one neuron and its shortcut, `[T, B, D, H, W]` -> the same.

    spike: x + neuron(branch(x)); spikes are added, so integers run along the shortcut (SEW-ResNet,
    arXiv:2102.04159; Spikformer). membrane: x + branch(neuron(x)); membrane potentials are added, and every
    branch sees spikes (MS-ResNet, arXiv:2112.08954; SDT).
    """

    def __init__(
        self, branch: nn.Module, dim: int, node: str | Spec, step: int, shortcut: Shortcut, drop_path: float = 0.0
    ):
        super().__init__()
        self.shortcut = shortcut
        self.branch = branch
        self.node = build_node(node, step, dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.node(self.branch(x)) if self.shortcut == "spike" else self.branch(self.node(x))
        return x + self.drop_path(y)


class Block(nn.Sequential):
    """An attention and an MLP, each in its residual branch, `[T, B, D, H, W]` -> the same."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float,
        step: int,
        attention: str | Spec,
        mlp: str | Spec,
        node: str | Spec,
        shortcut: Shortcut,
        drop_path: float = 0.0,
        mlp_node: str | Spec | None = None,
    ):
        super().__init__()
        mlp_node = node if mlp_node is None else mlp_node
        mixer = create("attention", attention, dim=dim, num_heads=num_heads, step=step, node=node)
        channels = create("mlp", mlp, dim=dim, mlp_ratio=mlp_ratio, step=step, node=mlp_node)
        self.attention = Residual(mixer, dim, node, step, shortcut, drop_path)
        self.mlp = Residual(channels, dim, mlp_node, step, shortcut, drop_path)
