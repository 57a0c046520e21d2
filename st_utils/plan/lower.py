"""Turns a graph into steps: kernels between buffers, and torch's own operators for all that the kernels do not know.

    steps = lower(capture(network, batch))
    steps.order[0].kind, steps.fallbacks

A node is a view of a buffer as long as kernels compute it. What torch must compute is asked for from its readers, the
network's output first: a node that nobody reads in torch's form is never computed in it.
"""

from __future__ import annotations

import operator
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import fx

from st_utils.kernels.node.form import from_json
from st_utils.kernels.spike_conv.definition import Geometry
from st_utils.plan.graph import Graph, shape_of
from st_utils.plan.patterns import MUL, Attention, KeptTokens, match, readers
from st_utils.plan.reduced import CONVOLUTIONS
from st_utils.plan.signals import Signals
from st_utils.plan.steps import Kernel, Steps, is_view, name_of
from st_utils.plan.views import Buffer, View, pixels

ADD = (torch.add, operator.add, "add")
MOST = 255  # the greatest count that bits are made for
UNIT = 16


def lower(graph: Graph) -> Steps:
    """The steps of a graph."""
    return _Lowering(graph).steps


class _Lowering(Signals):
    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.strings: dict[tuple, Buffer] = {}  # strings of all taps, by input and geometry
        found = match(graph)
        for node in graph.nodes:
            pattern = found.patterns.get(node)
            if pattern is not None and self.pattern(node, pattern):
                continue
            if node in found.absorbed:
                continue  # computed with a pattern; if that can't be, torch computes it when somebody asks
            self.node(node)
        self.tensor(graph.output)

    # -- nodes ---------------------------------------------------------------------------------------------------
    def node(self, node: fx.Node) -> None:
        if is_view(node):
            if (source := self.views.get(node.args[0])) and (view := self.viewed(node, source)):
                self.views[node] = view
            return
        name, shape = name_of(node), shape_of(node)
        if node.target in CONVOLUTIONS:
            self.convolution(node)
        elif node.target == torch.ops.zoo.integrate_and_fire.default:
            self.neuron(node)
        elif name == "max_pool2d":
            self.pool(node)
        elif node.target in ADD and shape is not None:
            self.sum(node)
        elif node.target in MUL and shape is not None:
            self.product(node)
        elif name in ("sum", "mean"):
            self.over_pixels(node)

    def convolution(self, node: fx.Node) -> None:
        names = ("x", "weight", "bias", *Geometry._fields)
        given: dict[str, Any] = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        x, weight, bias = given.get("x"), given.get("weight"), given.get("bias")
        view, shape = self.views.get(x), shape_of(node)
        known = all(other is None or other in self.graph.constants for other in (weight, bias))
        if view is None or view.buffer.most is None or len(shape) != 4 or 0 in shape or not known:
            return
        if given.get("groups", 1) != 1 or isinstance(given.get("padding"), str):
            return
        geometry = Geometry(*(_pair(given.get(n, d)) for n, d in (("stride", 1), ("padding", 0), ("dilation", 1))))
        weight, bias = (None if other is None else self.graph.constants[other].detach() for other in (weight, bias))
        source, rows, columns = view.buffer, *weight.shape[2:]
        geometry = _over_whole(view, geometry, (rows, columns))
        if geometry is None:
            return
        out = Buffer(shape[0], shape[2], shape[3], shape[1])
        strings = source
        if source.channels < UNIT and rows * columns > 1:
            strings = self.gathered(source, geometry, (rows, columns), out)
        self.add(
            Kernel(
                "convolve", [strings], out, geometry=geometry, kernel=(rows, columns), source=source, weight=weight,
                bias=bias, node=node,
            )
        )  # fmt: skip
        self.views[node] = View.of(out, shape)

    def gathered(self, source: Buffer, geometry: Geometry, kernel: tuple[int, int], out: Buffer) -> Buffer:
        key = source, geometry, kernel
        if key not in self.strings:
            strings = Buffer(out.images, out.height, out.width, prod(kernel) * source.channels, source.most)
            self.strings[key] = self.add(
                Kernel("gather", [source], strings, geometry=geometry, kernel=kernel, source=source)
            )
        return self.strings[key]

    def neuron(self, node: fx.Node) -> None:
        x, decay, text = node.args[:3]
        shape, form = shape_of(node), from_json(text)
        if len(shape) != 5 or 0 in shape or (decay is not None and decay not in self.graph.constants):
            return
        view = self.view(x)
        repeated = view is not None and shape[0] > 1 and view.dims[0] == ((shape[0], 0),)
        expected = None if view is None else View.of(view.buffer, shape[1:] if repeated else shape)
        if expected is None or view.buffer.most is not None or view.dims[repeated:] != expected.dims or view.offset:
            return
        if decay is not None:
            form = form._replace(decay=float(self.graph.constants[decay]))
        buffer = view.buffer
        out = Buffer(shape[0] * shape[1], shape[3], shape[4], shape[2], most=1)
        conv = buffer.step
        if isinstance(conv, Kernel) and conv.kind == "convolve" and not repeated and self.read_by(buffer, node):
            self.steps.order.remove(conv)
            fused = replace(conv, kind="convolve_and_fire", out=out, form=form, steps=shape[0])
            self.add(fused)
        else:
            self.add(Kernel("fire", [buffer], out, form=form, steps=shape[0], repeated=repeated))
        self.views[node] = View.of(out, shape)

    def read_by(self, buffer: Buffer, node: fx.Node) -> bool:
        """Whether only this node reads a convolution's result."""
        (source,) = (n for n, view in self.views.items() if view.buffer is buffer and not is_view(n))
        return readers(source, is_view) == [node]

    def pool(self, node: fx.Node) -> None:
        view, shape = self.view(node.args[0]), shape_of(node)
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
        numbers: dict[str, Any] = dict(zip(names, node.args[1:], strict=False)) | dict(node.kwargs)
        kernel, padding, dilation = (
            _pair(numbers.get(n, d)) for n, d in (("kernel_size", 1), ("padding", 0), ("dilation", 1))
        )
        stride = _pair(numbers.get("stride") or kernel)
        if view is None or shape is None or 0 in shape or numbers.get("return_indices") or (view.buffer.most or 0) > 1:
            return
        whole = View.of(view.buffer, shape_of(node.args[0]))
        if len(shape) != 4 or whole is None or view.dims != whole.dims or view.offset:
            return
        out = Buffer(shape[0], shape[2], shape[3], shape[1], view.buffer.most)
        self.add(Kernel("pool", [view.buffer], out, Geometry(stride, padding, dilation), kernel, source=view.buffer))
        self.views[node] = View.of(out, shape)

    def sum(self, node: fx.Node) -> None:
        if len(node.args) != 2 or node.kwargs or not all(isinstance(other, fx.Node) for other in node.args):
            return
        if not any(other in self.views for other in node.args) or shape_of(node.args[0]) != shape_of(node.args[1]):
            return
        views = [self.view(other) for other in node.args]
        if None in views or views[0].dims != views[1].dims or not all(v.whole for v in views):
            return
        one, other = views
        if one.buffer.sizes != other.buffer.sizes:
            return
        counts = [v.buffer.most for v in views]
        if None in counts or sum(counts) > MOST:
            one, other, most = self.in_numbers(one), self.in_numbers(other), None
        else:
            most = sum(counts)
        out = replace(one.buffer, most=most, step=None)
        self.add(Kernel("add", [one.buffer, other.buffer], out))
        self.views[node] = one.over(out)

    def product(self, node: fx.Node) -> None:
        """Spikes where both factors have one; the second may be the same for all pixels, `[..., C, 1, 1]`."""
        views = [self.views.get(other) for other in node.args if isinstance(other, fx.Node)]
        if len(views) != 2 or None in views or node.kwargs or {v.buffer.most for v in views} != {1}:
            return
        one, other = sorted(views, key=lambda v: -prod(v.shape))
        images, _, _, channels = one.buffer.sizes
        expected = View.of(one.buffer, one.shape)
        if len(one.shape) == len(other.shape) == 5 and other.buffer.sizes == (images, 1, 1, channels):
            per_image = View.of(other.buffer, (*one.shape[:3], 1, 1))
            if expected is None or one.dims != expected.dims or per_image is None or other.dims != per_image.dims:
                return
        elif one.dims != other.dims or one.buffer.sizes != other.buffer.sizes:
            return
        if one.offset or other.offset or not one.whole:
            return
        out = replace(one.buffer, step=None)
        self.add(Kernel("both", [one.buffer, other.buffer], out))
        self.views[node] = one.over(out)

    def over_pixels(self, node: fx.Node) -> None:
        """The sum or mean of spikes and counts over rows and columns."""
        view, shape = self.views.get(node.args[0]), shape_of(node)
        given = dict(zip(("x", "dim", "keepdim"), node.args, strict=False)) | dict(node.kwargs)
        axes, keep = given.get("dim"), given.get("keepdim", False)
        if view is None or view.buffer.most is None or shape is None or not isinstance(axes, tuple | list):
            return
        images, height, width, channels = view.buffer.sizes
        axes, size = [axis % len(view.dims) for axis in axes], height * width
        summed = [factor for axis in sorted(axes) for factor in view.dims[axis]]
        whole = View.of(view.buffer, (images, channels, height, width))
        if summed != [*whole.dims[2], *whole.dims[3]] or not view.whole or given.keys() - {"x", "dim", "keepdim"}:
            return
        out = Buffer(images, 1, 1, channels)
        divisor = float(size) if name_of(node) == "mean" else 1.0
        self.add(Kernel("sum_pixels", [view.buffer], out, divisor=divisor))
        dims = [
            () if number in axes else tuple((n, s // size if s >= channels else s) for n, s in axis)
            for number, axis in enumerate(view.dims)
            if keep or number not in axes
        ]
        self.views[node] = View(out, tuple(dims))

    # -- patterns ------------------------------------------------------------------------------------------------
    def pattern(self, node: fx.Node, pattern: Attention | KeptTokens) -> bool:
        """Lower a pattern; False where its inputs are not what the kernel reads."""
        return self.attention(node, pattern) if isinstance(pattern, Attention) else self.kept_tokens(node, pattern)

    def attention(self, node: fx.Node, pattern: Attention) -> bool:
        q, k, v = (self.views.get(other) for other in pattern[:3])
        if (
            None in (q, k, v)
            or {x.buffer.most for x in (q, k, v)} != {1}
            or len({x.buffer.sizes for x in (q, k, v)}) > 1
        ):
            return False
        swapped = (*range(len(k.dims) - 2), len(k.dims) - 1, len(k.dims) - 2)
        if not q.dims == k.permuted(swapped).dims == v.dims or not q.whole or shape_of(node) != q.shape:
            return False
        channels, factors = q.buffer.channels, [factor for axis in q.dims[:-2] for factor in axis]
        (width, at), *more = q.dims[-1] or ((1, 1),)
        heads = [factor for factor in factors if factor == (channels // width, width)] if width < channels else []
        if more or at != 1 or (width < channels and len(heads) != 1):
            return False
        groups = [factor for factor in factors if factor not in heads]
        if any(stride % channels for _, stride in (*groups, *q.dims[-2])):
            return False
        tables = pixels(groups, channels), pixels(q.dims[-2], channels)
        out = replace(q.buffer, most=None, step=None)
        self.add(
            Kernel(
                "attend", [x.buffer for x in (q, k, v)], out, heads=channels // width,
                attention=(*tables, pattern.inner, pattern.outer),
            )
        )  # fmt: skip
        self.views[node] = q.over(out)
        return True

    def kept_tokens(self, node: fx.Node, pattern: KeptTokens) -> bool:
        q, k = (self.views.get(other) for other in (pattern.q, pattern.k))
        _, decay, text = pattern.fire.args[:3]
        if (
            None in (q, k)
            or q.buffer.most != 1
            or k.buffer.most != 1
            or (decay is not None and decay not in self.graph.constants)
        ):
            return False
        T, B, heads, width, H, W = k.shape  # noqa: N806
        expected = View.of(k.buffer, (T, B, heads * width, H, W)).reshaped(k.shape)
        if expected is None or not q.dims == k.dims == expected.dims or q.offset or k.offset:
            return False
        form = from_json(text)
        if decay is not None:
            form = form._replace(decay=float(self.graph.constants[decay]))
        out = replace(k.buffer, step=None)
        self.add(Kernel("keep_tokens", [q.buffer, k.buffer], out, form=form, steps=T, heads=heads))
        self.views[node] = k.over(out)
        return True


def _pair(number: int | tuple[int, int] | list[int]) -> tuple[int, int]:
    return (number, number) if isinstance(number, int) else tuple(number) * (3 - len(number))


def _over_whole(view: View, geometry: Geometry, kernel: tuple[int, int]) -> Geometry | None:
    """The geometry over the view's whole buffer; None where the view is not `[N, C, H, W]` of it.

    A 1 x 1 convolution of every s-th row and column is one of stride s.
    """
    images, height, width, channels = view.buffer.sizes
    whole = View.of(view.buffer, (images, channels, height, width))
    if view.offset or len(view.dims) != 4 or view.dims[:2] != whole.dims[:2]:
        return None
    if view.dims == whole.dims:
        return geometry
    if geometry != Geometry() or kernel != (1, 1) or any(len(axis) > 1 for axis in view.dims):
        return None
    strides = []
    for axis, size, each in zip(view.dims[2:], (height, width), (width * channels, channels), strict=True):
        n, stride = axis[0] if axis else (1, each * size)
        if stride % each or n != -(-size // (stride // each)):
            return None
        strides.append(stride // each)
    return Geometry(tuple(strides))
