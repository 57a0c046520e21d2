"""Finds what several operators of a graph compute together: attention between spikes, and token attention.

match(graph)[mul]      # Attention(q, k, v, inner=1.0, outer=0.125) or KeptTokens(q, k, fire), by the last node
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import fx

from st_utils.plan.graph import Graph, shape_of

MATMUL = (torch.matmul, operator.matmul, "matmul", "__matmul__")
MUL = (torch.mul, operator.mul, "mul", "__mul__")
VIEWS = ("unsqueeze", "reshape", "view", "contiguous", "permute", "movedim", "transpose", "flatten", "unflatten")


class Attention(NamedTuple):
    """outer * (q (inner * k' v)), or the same as (q k') v: q and v are nodes `[..., N, d]`, k' is `[..., d, N]`."""

    q: fx.Node
    k: fx.Node
    v: fx.Node
    inner: float
    outer: float


class KeptTokens(NamedTuple):
    """k where the neurons over the number of q's spikes per head fire; q, k `[T, B, heads, d, H, W]`."""

    q: fx.Node
    k: fx.Node
    fire: fx.Node


class Found(NamedTuple):
    """The patterns by their last nodes, and the nodes that are computed with them."""

    patterns: dict[fx.Node, Attention | KeptTokens]
    absorbed: set[fx.Node]


def match(graph: Graph) -> Found:
    """All patterns of the graph."""
    found = Found({}, set())
    for node in graph.nodes:
        for find in (_attention, _kept_tokens):
            if node not in found.absorbed and (pattern := find(node, found.absorbed)):
                found.patterns[pattern[0]] = pattern[1]
    return found


def _attention(node: fx.Node, absorbed: set[fx.Node]) -> tuple[fx.Node, Attention] | None:
    """q (k' v) and (q k') v; they are equal, for counts are exact."""
    if node.target not in MATMUL:
        return None
    left, right = node.args
    for inside, q_first in ((right, True), (left, False)):
        product, inner, used = _unscaled(inside)
        if product.target not in MATMUL or len(product.users) != 1:
            continue
        first, second = product.args
        last, outer = _scaled(node)
        if q_first:
            attention = Attention(left, first, second, inner, outer)
        else:
            attention = Attention(first, second, right, 1.0, inner * outer)
        absorbed.update({product, *used, node} - {last})
        return last, attention
    return None


def _unscaled(node: fx.Node) -> tuple[fx.Node, float, list[fx.Node]]:
    """x, a and the node of `a x` where a is a number and nobody else reads it; else the node, 1 and nothing."""
    numbers = _factors(node) if len(node.users) == 1 else []
    if numbers:
        return next(other for other in node.args if isinstance(other, fx.Node)), numbers[0], [node]
    return node, 1.0, []


def _scaled(node: fx.Node) -> tuple[fx.Node, float]:
    """The only reader `a x` of x and a; the node itself and 1 where there is none."""
    if len(node.users) == 1:
        (reader,) = node.users
        numbers = _factors(reader)
        if numbers:
            return reader, numbers[0]
    return node, 1.0


def _factors(node: fx.Node) -> list[float]:
    """The number in `a x`; nothing where the node is something else."""
    is_product = node.op.startswith("call") and node.target in MUL
    return [float(other) for other in node.args if isinstance(other, int | float)] if is_product else []


def _kept_tokens(node: fx.Node, absorbed: set[fx.Node]) -> tuple[fx.Node, KeptTokens] | None:
    if node.target not in MUL or not all(isinstance(other, fx.Node) for other in node.args):
        return None
    for k, mask in (node.args, node.args[::-1]):
        shape = shape_of(k)
        if mask.target not in ("unsqueeze", torch.unsqueeze) or not shape or len(shape) != 6:
            continue
        fire = mask.args[0]
        if not _only(mask) or not _fires(fire) or not _only(fire) or fire.args[0].target not in ("sum", torch.sum):
            continue
        total = fire.args[0]
        axis = total.args[1] if len(total.args) == 2 else total.kwargs.get("dim")
        if not _only(total) or total.kwargs.get("keepdim") or axis not in (3, (3,), [3]) or mask.args[1] != 3:
            continue
        if shape_of(total.args[0]) == shape:
            absorbed.update({mask, fire, total})
            return node, KeptTokens(total.args[0], k, fire)
    return None


def _fires(node: object) -> bool:
    return isinstance(node, fx.Node) and node.target == torch.ops.zoo.integrate_and_fire.default


def _only(node: fx.Node) -> bool:
    return len(node.users) == 1


def readers(node: fx.Node, is_view: Callable[[fx.Node], bool]) -> list[fx.Node]:
    """The nodes that read a tensor, through views and copies of it."""
    found = []
    for user in node.users:
        found += readers(user, is_view) if is_view(user) else [user]
    return found
