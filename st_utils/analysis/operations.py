"""Counts a model's products, and how many of them its spikes turn into additions.

Every convolution and matrix product is seen where torch carries it out, so that products inside an attention count
like those of a layer. While the counter looks on, fused kernels and additions over spikes give way to torch's own
operators, so that the counts depend on no backend. Of each product one of three holds:

- an operand is binary: each spike adds the weights (or numbers) that it meets: accumulations (AC), counted exactly,
  borders and padding included; where both operands are binary, only where both are 1;
- an operand holds integers (sums of spikes, `ilif`'s counts): the same, a value of n counting as n spikes; so do
  multiples of what a spike is worth in the model's neurons (`unit`: `ilif` gives on its counts over their largest);
- both are real-valued: multiply-accumulates (MAC), all of them, as a dense engine does them.

This is judged for every row by itself (an image in a time step of a convolution, a matrix of a batched product, a
vector that a linear layer takes), so that the counts of a batch are the sums of its images' counts.

What is computed once for all time steps (the first layer, on a still image) counts once. Norms, which fold into the
weights, neurons, pooling and additions along shortcuts are not counted, as in the field's tables.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from st_utils.node.base import Node

aten = torch.ops.aten
KINDS = ("silent", "binary", "integer", "real")
BINARY, INTEGER, REAL = 1, 2, 3
BYTES = (1 / 8, 1 / 8, 1.0, 4.0)  # of a number of each kind
# The two matrices among the arguments of a product.
PRODUCTS = {
    aten.mm: (0, 1),
    aten.bmm: (0, 1),
    aten.mv: (0, 1),
    aten.dot: (0, 1),
    aten.vdot: (0, 1),
    aten.addmm: (1, 2),
    aten.baddbmm: (1, 2),
    aten.addbmm: (1, 2),
    aten.addmv: (1, 2),
}
logger = logging.getLogger(__name__)


@dataclass
class Products:
    """What was counted in one layer.

    Attributes:
        layer: the module's name in the model.
        operation: "convolution" or "product".
        inputs: what entered that is no weight: of KINDS, the furthest from spikes that was seen in a row; of two
            operands, the nearer to spikes, which decides what the product costs.
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


class Rows(NamedTuple):
    """An operand `[R, ...]` and what its rows hold.

    Attributes:
        spikes: the operand; where a row holds multiples of a neuron's unit, how many.
        kinds: `[R]`, places in KINDS.
        sums: `[R]` in float64, the spikes of each row: its absolute values' sum.
    """

    spikes: Tensor
    kinds: Tensor
    sums: Tensor

    @property
    def bytes(self) -> float:
        """What reading the operand takes: a bit a binary value, a byte an integer, four a real number."""
        if not len(self.kinds):
            return 0.0
        each = torch.tensor(BYTES, dtype=torch.float64, device=self.kinds.device)[self.kinds]
        return self.spikes[0].numel() * each.sum().item()


def rows_of(x: Tensor, units: Iterable[float] = ()) -> Rows:
    """What each row of x `[R, ...]` holds; real rows that hold multiples of one of the units become counts."""
    x = x.float() if x.dtype == torch.bool else x
    kinds = _kinds(x)
    for unit in units:
        if not (real := kinds == REAL).any():
            break
        counts = x / unit
        fits = real & (_kinds(counts) < REAL)
        x = torch.where(fits.view(-1, *[1] * (x.dim() - 1)), counts, x)
        kinds = torch.where(fits, INTEGER, kinds)
    return Rows(x, kinds, x.abs().flatten(1).sum(1, dtype=torch.float64))


def _kinds(x: Tensor) -> Tensor:
    """The place in KINDS of each row of x: all 0, 0 and 1, whole numbers, or others."""
    x = x.flatten(1)
    tests = (x != 0, x != x * x, x != x.round())  # at least binary, at least integer, real
    return torch.stack([(i + 1) * test.any(1) for i, test in enumerate(tests)]).amax(0)


def kind_of(x: Tensor) -> str:
    """What a tensor holds: only 0 ("silent"), 0 and 1 ("binary"), whole numbers ("integer"), or others ("real")."""
    return KINDS[rows_of(x.reshape(1, -1)).kinds.item()]


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

    @property
    def _layer(self) -> str:
        return self._inside[-1] if self._inside else ""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet is aten.convolution:
            self._convolution(args[0], args[1], result, *args[3:9])
        elif packet in PRODUCTS:
            self._product(*(args[place] for place in PRODUCTS[packet]))
        elif packet.__name__.startswith("_scaled_dot_product"):
            self._attention(*args[:3])
        elif packet in flop_registry:
            logger.warning("%s: the products of %s are not counted", self._layer or "the model", packet)
        return result

    def _record(self, operation: str) -> Products:
        found = self.layers.setdefault((self._layer, operation), Products(self._layer, operation))
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
        found, rows = self._record("convolution"), rows_of(x, self._units)
        places = prod(x.shape[2:]) if transposed else prod(result.shape[2:])
        real, each = rows.kinds == REAL, float(places * weight.numel())
        # each spike meets the weights that reach a place of the output
        spikes = rows.spikes[~real].abs()
        acs = _reached(spikes, weight, stride, padding, dilation, transposed, output_padding, groups)
        self._add(found, rows.kinds, real.sum().item() * each, acs, len(x) * each)
        found.parameters = max(found.parameters, weight.numel())
        found.read += rows.bytes

    def _product(self, left: Tensor, right: Tensor) -> None:
        """left `[(E,) M, K]` times right `[(E,) K, N]`; vectors lack M or N."""
        left = left.unsqueeze(0) if left.dim() == 1 else left
        right = right.unsqueeze(-1) if right.dim() == left.dim() - 1 or right.dim() == 1 else right
        if left.data_ptr() in self._weights:  # weight times columns: the transposed product
            left, right = right.mT, left.mT
        weight = right.data_ptr() in self._weights
        if left.dim() == 2:  # each row of the left side is judged by itself
            left, right = left.unsqueeze(1), right.unsqueeze(0)
        found, rows, columns = self._record("product"), rows_of(left, self._units), right.shape[-1]
        dense = float(left.numel() * columns)
        if weight:
            kinds, acs = rows.kinds, rows.sums * columns
            found.parameters = max(found.parameters, right.numel())
        else:
            other = rows_of(right, self._units)
            kinds = torch.minimum(rows.kinds, other.kinds)
            acs = torch.where(rows.kinds <= other.kinds, rows.sums * columns, other.sums * left.shape[-2])
            both = torch.maximum(rows.kinds, other.kinds) <= BINARY  # then an addition where both are 1
            met = rows.spikes.sum(-2, dtype=torch.float64) * other.spikes.sum(-1, dtype=torch.float64)
            acs = torch.where(both, met.sum(-1), acs)
            found.read += other.bytes
        real = kinds == REAL
        self._add(found, kinds, real.sum().item() * dense / max(len(left), 1), acs[~real].sum().item(), dense)
        found.read += rows.bytes

    def _attention(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        """A fused softmax(q k') v: its two products, the first factor of the second being real."""
        q, k, v = (x.flatten(0, -3) for x in (q, k, v))
        self._product(q, k.mT)
        self._product(q.new_full((len(q), q.shape[1], k.shape[1]), 0.5), v)

    def _add(self, found: Products, kinds: Tensor, macs: float, acs: float, dense: float) -> None:
        furthest = KINDS[int(kinds.max())] if len(kinds) else "silent"
        found.inputs = max(found.inputs, furthest, key=KINDS.index)
        found.macs, found.acs, found.dense = found.macs + macs, found.acs + acs, found.dense + dense


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
    """How many products of a value and a weight a convolution has, each value counting as that many spikes."""
    if not len(x):
        return 0.0
    if transposed:
        ones = torch.ones_like(weight)
        met = aten.convolution(x, ones, None, stride, padding, dilation, True, output_padding, groups)
        return met.sum(dtype=torch.float64).item()
    per_group = x.unflatten(1, (groups, -1)).sum(2)  # all channels of a group meet the same weights' places
    ones = torch.ones((groups, 1, *weight.shape[2:]), dtype=x.dtype, device=x.device)
    met = aten.convolution(per_group, ones, None, stride, padding, dilation, False, output_padding, groups)
    return met.sum(dtype=torch.float64).item() * (weight.shape[0] // groups)
