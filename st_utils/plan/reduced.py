"""Weights as whole numbers of 16 bits: what one is worth, per output channel of each convolution.

    units = calibrated(graph, batch)[node]        # float32 [C']: powers of two
    (weight / units.view(-1, 1, 1, 1)).round()    # the whole numbers

The sums of a channel must fit into 16 bits, from -32768 to 32767. Its unit is the smallest power of two with which
twice the largest current of the calibration's images fits. Sums that run over on the way do no harm (two's complement);
a last sum that does is wrong by 65536 units. A power of two, so that nothing but the weights is rounded.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx

from st_utils.plan.graph import Graph, run

CONVOLUTIONS = (torch.ops.zoo.sparse_conv.default, torch.conv2d, torch.nn.functional.conv2d)
MARGIN = 2.0  # times the largest current
LARGEST = 32767.0


def calibrated(graph: Graph, batch: Tensor) -> dict[fx.Node, Tensor]:
    """What a whole number is worth in each convolution `[N, C, H, W]` of the graph, `[C']`."""
    units: dict[fx.Node, Tensor] = {}

    def look(node: fx.Node, value: object) -> None:
        if node.target in CONVOLUTIONS:
            units[node] = unit_of(value.detach().abs().amax((0, 2, 3)))

    run(graph, batch, look)
    return units


def unit_of(largest: Tensor) -> Tensor:
    """The smallest power of two of which 32767 are at least twice these numbers."""
    return torch.exp2((MARGIN * largest.double().clamp(min=1e-30) / LARGEST).log2().ceil()).float()


def in_units(weight: Tensor, bias: Tensor | None, units: Tensor) -> tuple[Tensor, Tensor | None]:
    """The weight and bias as whole numbers of units: float32, and int16."""
    whole = (weight / units.view(-1, 1, 1, 1)).round().clamp(-LARGEST - 1, LARGEST)
    if bias is None:
        return whole, None
    return whole, (bias / units).round().clamp(-LARGEST - 1, LARGEST).to(torch.int16)
