"""Counts a model's products, and how many of them its spikes turn into additions.

Every convolution and matrix product is seen where torch carries it out, so that products inside an attention count
like those of a layer. Of each, one of three holds:

- an operand is binary: each spike adds the weights (or numbers) that it meets: accumulations (AC), counted exactly,
  borders and padding included; where both operands are binary, only where both are 1;
- an operand holds integers (sums of spikes, `ilif`'s counts): the same, a value of n counting as n spikes; so do
  multiples of what a spike is worth in the model's neurons (`unit`: `ilif` gives on its counts over their largest);
- both are real-valued: multiply-accumulates (MAC), all of them, as a dense engine does them.

What is computed once for all time steps (the first layer, on a still image) counts once. Norms, which fold into the
weights, neurons, pooling and additions along shortcuts are not counted, as in the field's tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from st_utils.node.base import Node

aten = torch.ops.aten
KINDS = ("silent", "binary", "integer", "real")
BYTES = {"silent": 1 / 8, "binary": 1 / 8, "integer": 1.0, "real": 4.0}


@dataclass
class Products:
    """What was counted in one layer.

    Attributes:
        layer: the module's name in the model.
        operation: "convolution" or "product".
        inputs: what entered that is no weight: of KINDS, the furthest from spikes that was seen; of two operands,
            the nearer to spikes, which decides what the product costs.
        macs, acs: multiply-accumulates and accumulations.
        dense: the products of the same shapes without regard to zeros.
        parameters: numbers of weights that took part.
        read: bytes of activations read: a bit a binary value, a byte an integer, four a real number.
    """

    layer: str
    operation: str
    inputs: str = "silent"
    macs: float = 0.0
    acs: float = 0.0
    dense: float = 0.0
    parameters: int = 0
    read: float = 0.0
    calls: int = field(default=0, repr=False)


def kind_of(x: Tensor) -> str:
    """What a tensor holds: only 0 ("silent"), 0 and 1 ("binary"), whole numbers ("integer"), or others ("real")."""
    if not bool(x.any()):
        return "silent"
    if x.dtype == torch.bool:
        return "binary"
    if bool((x == x * x).all()):
        return "binary"
    return "integer" if bool((x == x.round()).all()) else "real"


def in_spikes(x: Tensor, units: Iterable[float]) -> Tensor:
    """x as counts of spikes, where it is real and a multiple of one of these units; else x itself."""
    if kind_of(x) == "real":
        return next((counts for unit in units if kind_of(counts := x / unit) == "integer"), x)
    return x


class OperationCounter(TorchDispatchMode):
    """Counts what runs inside `with OperationCounter(model) as counter: model(x)`; `counter.layers` has the result.

    `layers` maps (layer, operation) to its Products, in the order in which they first ran.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.layers: dict[tuple[str, str], Products] = {}
        self._model = model
        self._weights = {p.data_ptr() for p in model.parameters()}
        self._units = {unit for m in model.modules() if isinstance(m, Node) and (unit := m.unit) != 1}
        self._inside: list[str] = []
        self._handles: list[Any] = []

    def __enter__(self) -> OperationCounter:
        for name, module in self._model.named_modules():
            self._handles.append(module.register_forward_pre_hook(self._enterer(name)))
            self._handles.append(module.register_forward_hook(self._leave, always_call=True))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        for handle in self._handles:
            handle.remove()

    def _enterer(self, name: str) -> Callable:
        return lambda _module, _inputs: self._inside.append(name)

    def _leave(self, *_: Any) -> None:
        self._inside.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet is aten.convolution:
            self._convolution(in_spikes(args[0], self._units), args[1], result, *args[3:9])
        elif packet in (aten.mm, aten.bmm):
            self._product(*args[:2])
        elif packet in (aten.addmm, aten.baddbmm):
            self._product(*args[1:3])
        return result

    def _record(self, operation: str) -> Products:
        layer = self._inside[-1] if self._inside else ""
        found = self.layers.setdefault((layer, operation), Products(layer, operation))
        found.calls += 1
        return found

    def _convolution(
        self,
        x: Tensor,
        weight: Tensor,
        result: Tensor,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        transposed: bool,
        output_padding: list[int],
        groups: int,
    ) -> None:
        found, kind = self._record("convolution"), kind_of(x)
        places = prod(x.shape[2:]) if transposed else prod(result.shape[2:])
        dense = float(x.shape[0] * places * weight.numel())
        if kind == "real":
            macs, acs = dense, 0.0
        else:  # each spike meets the weights that reach a place of the output
            settings = (stride, padding, dilation, transposed, output_padding, groups)
            macs, acs = 0.0, _reached(x.abs(), weight, *settings)
        self._add(found, kind, macs, acs, dense, x, weight.numel())

    def _product(self, left: Tensor, right: Tensor) -> None:
        found = self._record("product")
        rows, inner, columns = left.shape[-2], left.shape[-1], right.shape[-1]
        dense = float(prod(left.shape[:-2]) * rows * inner * columns)
        weight = right if right.data_ptr() in self._weights else left if left.data_ptr() in self._weights else None
        left, right = (side if side is weight else in_spikes(side, self._units) for side in (left, right))
        kinds = {id(side): kind_of(side) for side in (left, right) if side is not weight}
        kind = min(kinds.values(), key=KINDS.index)
        macs, acs = 0.0, 0.0
        if kind == "real":
            macs = dense
        elif weight is None and set(kinds.values()) <= {"silent", "binary"}:
            acs = (left.double() @ right.double()).sum().item()
        elif kinds.get(id(left)) == kind:
            acs = left.abs().sum(dtype=torch.float64).item() * columns
        else:
            acs = right.abs().sum(dtype=torch.float64).item() * rows
        moved = [side for side in (left, right) if side is not weight]
        self._add(found, kind, macs, acs, dense, moved[0], 0 if weight is None else weight.numel())
        for side in moved[1:]:
            found.read += side.numel() * BYTES[kinds[id(side)]]

    def _add(
        self, found: Products, kind: str, macs: float, acs: float, dense: float, x: Tensor, parameters: int
    ) -> None:
        found.inputs = max(found.inputs, kind, key=KINDS.index)
        found.macs, found.acs, found.dense = found.macs + macs, found.acs + acs, found.dense + dense
        found.parameters = max(found.parameters, parameters)
        found.read += x.numel() * BYTES[kind_of(x)]


def _reached(
    x: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> float:
    """How many products of a value and a weight a convolution has, each value counting as so many spikes."""
    if transposed:
        ones = torch.ones_like(weight)
        return (
            aten.convolution(x, ones, None, stride, padding, dilation, True, output_padding, groups)
            .sum(dtype=torch.float64)
            .item()
        )
    per_group = x.unflatten(1, (groups, -1)).sum(2)  # all channels of a group meet the same weights' places
    ones = torch.ones((groups, 1, *weight.shape[2:]), dtype=x.dtype, device=x.device)
    met = aten.convolution(per_group, ones, None, stride, padding, dilation, False, output_padding, groups)
    return met.sum(dtype=torch.float64).item() * (weight.shape[0] // groups)
