"""Where each node's numbers are while a graph is turned into steps: in a buffer, or with torch.

signals = Signals(graph)
signals.view(node)          # as a kernel reads it: a view of a buffer, copied into one if torch computed it
signals.tensor(node)        # as torch reads it: from now on it is among the steps
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import torch
from torch import fx

from st_utils.plan.graph import Graph, call, shape_of
from st_utils.plan.steps import RESHAPES, Call, Keep, Kernel, Show, Steps, is_view, name_of
from st_utils.plan.views import Buffer, View


class Signals:
    """The views of nodes, and the steps so far.

    Attributes:
        views: the nodes that a kernel computed, or that show what one computed.
        ready: the nodes that torch has as tensors.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph, self.steps = graph, Steps(graph)
        self.views: dict[fx.Node, View] = {}
        self.ready = {graph.input, *graph.constants}
        self.numbers: dict[Buffer, Buffer] = {}  # of bits, the numbers that they stand for

    def add(self, step: Kernel) -> Buffer:
        step.out.step = step
        self.steps.order.append(step)
        return step.out

    # -- what torch reads --------------------------------------------------------------------------------------
    def tensor(self, node: fx.Node) -> None:
        """Have torch compute a node, and all that it needs, unless it has it."""
        if node in self.ready:
            return
        self.ready.add(node)
        if node in self.views:
            self.steps.order.append(Show(node, self.in_numbers(self.views[node])))
            return
        for other in node.all_input_nodes:
            self.tensor(other)
        self.steps.order.append(Call(node))

    def in_numbers(self, view: View) -> View:
        """A view of bits as one of the numbers that they stand for."""
        buffer = view.buffer
        if buffer.most is None:
            return view
        if buffer not in self.numbers:
            self.numbers[buffer] = replace(buffer, most=None, step=None)
            self.add(Kernel("to_numbers", [buffer], self.numbers[buffer]))
        return view.over(self.numbers[buffer])

    # -- what kernels read ---------------------------------------------------------------------------------------
    def view(self, node: fx.Node) -> View | None:
        """A node as a view of a buffer: of what a kernel wrote, or of a copy of torch's tensor `[..., C, H, W]`."""
        if node in self.views or node in self.graph.constants or not isinstance(node, fx.Node):
            return self.views.get(node)
        if is_view(node) and (source := self.view(node.args[0])) and (view := self.viewed(node, source)):
            self.views[node] = view
            return view
        value, shape = node.meta.get("example_value"), shape_of(node)
        if shape is None or not 4 <= len(shape) <= 5 or value.dtype != torch.float32 or 0 in value.stride():
            return None
        buffer = Buffer(prod(shape[:-3]), shape[-2], shape[-1], shape[-3])
        self.tensor(node)
        self.steps.order.append(Keep(node, buffer))
        self.views[node] = View.of(buffer, shape)
        return self.views[node]

    def viewed(self, node: fx.Node, source: View) -> View | None:
        name, shape = name_of(node), shape_of(node)
        if name in ("contiguous", "detach"):
            return source
        if name == "expand":
            return source.expanded(shape)
        if name in RESHAPES:
            return source.reshaped(shape)
        if name == "getitem":
            return source.indexed(node.args[1])
        marks = torch.empty_strided(source.shape, [2**i for i in range(len(source.shape))], device="meta")
        moved = call(node, (marks, *node.args[1:]), node.kwargs)
        dims = [
            source.dims[stride.bit_length() - 1] if n > 1 else ()
            for n, stride in zip(moved.shape, moved.stride(), strict=True)
        ]
        return replace(source, dims=tuple(dims))
