"""Count the operations of a model: multiply-accumulates (MAC), and accumulations (AC) that spikes cause.

    with torch.no_grad(), OperationCounter(model) as counter:
        model(images)
    for layer in counter.layers.values():
        print(layer.layer, layer.inputs, layer.macs, layer.acs)

A product is a convolution or a matrix product y_j = sum_i x_i w_ij, of an input and weights or of two signals. It
counts as

    AC  = sum_i |x_i| F_i     where x is binary or whole numbers; F_i: how many weights w_ij the input x_i meets,
                              without those that lie in the padding. A value of n counts as n spikes.
    AC  = sum_{i,j} x_i w_ij  where x and w are both binary signals: an addition where both are 1.
    MAC = sum_i F_i           where neither operand is binary or whole numbers: a dense engine multiplies zeros too.

Synaptic operations (SOPs) are the ACs. The field's estimate, SOPs = r T MACs with the firing rate r and the MACs of
one time step (Zhou et al. 2023, arXiv:2209.15425), is equal where every spike meets equally many weights; here each
spike is counted at its own place. Multiples of the value that a model's neurons emit for a spike (`unit`: `ilif` emits
its counts divided by the largest) count as whole numbers.

Every product is observed where torch carries it out, so that products inside an attention count like those of a layer.
Meanwhile fused kernels and additions over spikes are replaced by torch's own operators: counts do not depend on the
backend. Each row is judged by itself (an image in a time step of a convolution, a matrix of a batched product, a vector
of a linear layer), so that the counts of a batch are the sums of its images' counts. A layer that is computed once for
all time steps, as the first one on a still image, counts once. Norms (they fold into the weights), neurons, pooling and
additions along shortcuts are not counted, as in the field's tables.
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
BYTES = (1 / 8, 1 / 8, 1.0, 4.0)  # per number of each of KINDS: 1 bit, 1 bit, 1 byte, 4 bytes
# The indices of the two matrices among the arguments of a product.
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
    """The counts of one layer, over all calls and images.

    Attributes:
        layer: the module's name in the model.
        operation: "convolution" or "product".
        inputs: the last of KINDS that a row of the input was. Of two signals, that of the nearer to spikes counts,
            because it decides the product's cost.
        macs, acs: multiply-accumulates and accumulations.
        dense: multiply-accumulates if no zero were skipped.
        parameters: the number of weights.
        read: bytes of activations read: 1 bit per binary value, 1 byte per whole number, 4 bytes per real number.
        calls: how often the layer ran.
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


class ConvSettings(NamedTuple):
    """The settings of a convolution, in the order in which aten.convolution takes them."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    transposed: bool
    output_padding: list[int]
    groups: int


class Rows(NamedTuple):
    """An operand `[R, ...]`, and the kind and the number of spikes of each of its rows.

    Attributes:
        spikes: the operand; rows of multiples of a neuron's unit are divided by the unit.
        kinds: `[R]`, indices into KINDS.
        sums: `[R]` in float64, the spikes of each row: the sum of its absolute values.
    """

    spikes: Tensor
    kinds: Tensor
    sums: Tensor

    @property
    def bytes(self) -> float:
        """The bytes to read: 1 bit per binary value, 1 byte per whole number, 4 bytes per real number."""
        if not len(self.kinds):
            return 0.0
        per_value = torch.tensor(BYTES, dtype=torch.float64, device=self.kinds.device)[self.kinds]
        return self.spikes[0].numel() * per_value.sum().item()


def rows_of(x: Tensor, units: Iterable[float] = ()) -> Rows:
    """Classify the rows of x `[R, ...]`; a real row of multiples of one of `units` becomes a row of whole numbers."""
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
    """The index into KINDS of each row of x `[R, ...]`: only 0, 0 and 1, whole numbers, or others."""
    x = x.flatten(1)
    tests = (x != 0, x != x * x, x != x.round())  # at least binary, at least integer, real
    return torch.stack([(i + 1) * test.any(1) for i, test in enumerate(tests)]).amax(0)


def kind_of(x: Tensor) -> str:
    """Classify a tensor: only 0 ("silent"), 0 and 1 ("binary"), whole numbers ("integer"), or others ("real")."""
    return KINDS[rows_of(x.reshape(1, -1)).kinds.item()]


class OperationCounter(TorchDispatchMode):
    """Counts the operations that run inside `with OperationCounter(model) as counter: model(x)`.

    `counter.layers` maps (layer, operation) to its `Products`, in the order in which they first ran.
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
        """A hook that notes that the module of this name runs."""
        return lambda _module, _inputs: self._inside.append(name)

    def _leave(self, *_: Any) -> None:
        self._inside.pop()

    @property
    def _layer(self) -> str:
        """The name of the innermost module that runs."""
        return self._inside[-1] if self._inside else ""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet is aten.convolution:
            x, weight, _bias, *settings = args
            self._convolution(x, weight, result, ConvSettings(*settings))
        elif packet in PRODUCTS:
            self._product(*(args[place] for place in PRODUCTS[packet]))
        elif packet.__name__.startswith("_scaled_dot_product"):
            self._attention(*args[:3])
        elif packet in flop_registry:
            logger.warning("%s: the products of %s are not counted", self._layer or "the model", packet)
        return result

    def _record(self, operation: str) -> Products:
        """The `Products` of this operation in the layer that runs; adds a call."""
        products = self.layers.setdefault((self._layer, operation), Products(self._layer, operation))
        products.calls += 1
        return products

    def _convolution(self, x: Tensor, weight: Tensor, result: Tensor, settings: ConvSettings) -> None:
        """Count a convolution of x `[R, C, ...]`; each row is an image in a time step."""
        products, rows = self._record("convolution"), rows_of(x, self._units)
        places = prod(x.shape[2:]) if settings.transposed else prod(result.shape[2:])
        real, dense_per_row = rows.kinds == REAL, float(places * weight.numel())
        acs = _accumulations(rows.spikes[~real].abs(), weight, settings)
        self._add(products, rows.kinds, real.sum().item() * dense_per_row, acs, len(x) * dense_per_row)
        products.parameters = max(products.parameters, weight.numel())
        products.read += rows.bytes

    def _product(self, left: Tensor, right: Tensor) -> None:
        """Count left `[(E,) M, K]` times right `[(E,) K, N]`; a vector has no M or no N."""
        left = left.unsqueeze(0) if left.dim() == 1 else left
        right = right.unsqueeze(-1) if right.dim() == left.dim() - 1 or right.dim() == 1 else right
        if left.data_ptr() in self._weights:  # W X is counted as (X' W')', so that the weights are on the right
            left, right = right.mT, left.mT
        weight = right.data_ptr() in self._weights
        if left.dim() == 2:  # each row of the left side is judged by itself
            left, right = left.unsqueeze(1), right.unsqueeze(0)
        products, rows, columns = self._record("product"), rows_of(left, self._units), right.shape[-1]
        dense = float(left.numel() * columns)
        if weight:
            kinds, acs = rows.kinds, rows.sums * columns
            products.parameters = max(products.parameters, right.numel())
        else:
            other = rows_of(right, self._units)
            kinds = torch.minimum(rows.kinds, other.kinds)
            acs = torch.where(rows.kinds <= other.kinds, rows.sums * columns, other.sums * left.shape[-2])
            both_binary = torch.maximum(rows.kinds, other.kinds) <= BINARY  # an addition where both are 1
            coincidences = rows.spikes.sum(-2, dtype=torch.float64) * other.spikes.sum(-1, dtype=torch.float64)
            acs = torch.where(both_binary, coincidences.sum(-1), acs)
            products.read += other.bytes
        real = kinds == REAL
        self._add(products, kinds, real.sum().item() * dense / max(len(left), 1), acs[~real].sum().item(), dense)
        products.read += rows.bytes

    def _attention(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        """Count the two products of a fused softmax(q k') v; 0.5 stands for the softmax's values, which are real."""
        q, k, v = (x.flatten(0, -3) for x in (q, k, v))
        self._product(q, k.mT)
        self._product(q.new_full((len(q), q.shape[1], k.shape[1]), 0.5), v)

    def _add(self, products: Products, kinds: Tensor, macs: float, acs: float, dense: float) -> None:
        """Add the counts of one call, whose rows have these kinds."""
        last_kind = KINDS[int(kinds.max())] if len(kinds) else "silent"
        products.inputs = max(products.inputs, last_kind, key=KINDS.index)
        products.macs, products.acs = products.macs + macs, products.acs + acs
        products.dense += dense


def _accumulations(spikes: Tensor, weight: Tensor, settings: ConvSettings) -> float:
    """The accumulations sum_i x_i F_i of a convolution of x >= 0 `[R, C, ...]`.

    F_i is how often x_i is used, so that the sum is that of the convolution of x with weights that are all 1.
    """
    if not len(spikes):
        return 0.0
    if settings.transposed:
        sums = aten.convolution(spikes, torch.ones_like(weight), None, *settings)
        return sums.sum(dtype=torch.float64).item()
    # the channels of a group share F_i: one channel per group, their sum, saves the others' work
    groups = settings.groups
    per_group = spikes.unflatten(1, (groups, -1)).sum(2)
    ones = torch.ones((groups, 1, *weight.shape[2:]), dtype=spikes.dtype, device=spikes.device)
    sums = aten.convolution(per_group, ones, None, *settings)
    return sums.sum(dtype=torch.float64).item() * (weight.shape[0] // groups)
