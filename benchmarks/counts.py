"""Do this project's operation counts agree with those of torch, SpikingJelly and of shapes by hand?

    python -m benchmarks.counts [--batch 1 4 64] [--spec SPEC ...] [--out FILE.json]

Models are untrained, at published sizes; the running statistics of their norms are those of one batch, so that they
fire as in training. Columns, in operations per image:

    dense                multiply-accumulates if no zero were skipped
    flop_counter_dense   the same by torch's FlopCounterMode, whose two operations per product are halved
    layers_by_hand       the same of the layers with weights alone, from the shapes of their outputs
    macs, acs            multiply-accumulates and accumulations
    off, same_off        macs, acs and dense without the fused neurons and the additions over spikes; are they equal?
    synops               accumulations of the products that only binary spikes enter; conv_synops: of convolutions
    spikingjelly_synops  the same by SpikingJelly's SynOpCounter; spikingjelly_conv_synops: of convolutions
    convolutions         the number of convolutions that were counted; convolutions_that_ran: that ran

Of a product of two signals, SpikingJelly classifies whole tensors, this project each matrix. Where a tensor of sums of
spikes has a head in which all sums are 0 or 1, this project's `synops` are fewer: its zeros are skipped.
Result: `benchmarks/results/counts.json`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from unittest import mock

import torch
from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import zoo
from benchmarks.firing import settle
from benchmarks.result import publish
from st_utils.analysis.operations import OperationCounter
from st_utils.analysis.profile import profile
from st_utils.kernels.node import op
from st_utils.kernels.spike_conv import op as sparse_conv
from st_utils.training.environment import environment

SPECS = ("spikformer", "sdt", "qkformer", "spikingresformer", "dta_snn18", "sdt_v3")
EVENTS = 'sdt(embed_dim=256, depth=2, embedding=ms_sps(pooling="1111"), step=8)'  # on [B, 8, 2, 64, 64]


def prepared(spec: str, shape: tuple[int, ...]) -> nn.Module:
    """The model in evaluation mode; norms have the statistics of random images or frames of this shape, without B."""
    torch.manual_seed(0)
    side = {"img_size": shape[-1], "in_channels": shape[-3]}
    return settle(zoo.create_model(spec, **side), torch.rand(8, *shape)).eval()


def counted(model: nn.Module, x: Tensor) -> dict[str, float]:
    """This project's counts per image: acs, macs, dense, and the number of convolutions."""
    layers = [layer for layer in profile(model, x, rounds=0)["layers"] if layer["kind"] != "node"]
    sums = {name: sum(layer[name] for layer in layers) for name in ("acs", "macs", "dense")}
    return sums | {"convolutions": sum(layer["kind"] == "convolution" for layer in layers)}


@torch.no_grad()
def synaptic_operations(model: nn.Module, x: Tensor) -> dict[str, float]:
    """This project's synops and conv_synops per image: accumulations of products that only binary spikes enter."""
    with OperationCounter(model) as counter:
        model(x)
    spiking = [found for found in counter.layers.values() if found.inputs in ("silent", "binary")]
    convolved = [found.acs for found in spiking if found.operation == "convolution"]
    return {"synops": sum(found.acs for found in spiking) / len(x), "conv_synops": sum(convolved) / len(x)}


@torch.no_grad()
def by_hand(model: nn.Module, x: Tensor) -> tuple[float, int]:
    """By the shapes of layers' outputs: multiply-accumulates per image, and the number of convolutions that ran."""
    total, seen = 0.0, set()

    def count(layer: nn.Module, _inputs: tuple, y: Tensor) -> None:
        nonlocal total
        total += y.numel() * layer.weight[0].numel()
        seen.add(layer)

    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, kinds)]
    model(x)
    for handle in handles:
        handle.remove()
    return total / len(x), sum(not isinstance(layer, nn.Linear) for layer in seen)


@torch.no_grad()
def row(spec: str, model: nn.Module, x: Tensor) -> dict:
    """All columns for one model and batch."""
    ours = counted(model, x)
    with (
        mock.patch.object(sparse_conv, "available", return_value=False),
        mock.patch.object(op, "_available", return_value=False),
    ):
        op.has_kernel.cache_clear()
        off = counted(model, x)
    op.has_kernel.cache_clear()
    theirs, flops = SynOpCounter(), FlopCounterMode(display=False)
    with DispatchCounterMode([theirs]):
        model(x)
    with flops:
        model(x)
    hand, convolutions = by_hand(model, x)
    return {
        "spec": spec,
        "batch": len(x),
        **ours,
        "off": off,
        "same_off": ours == off,
        **synaptic_operations(model, x),
        "spikingjelly_synops": theirs.get_total() / len(x),
        "spikingjelly_conv_synops": theirs.records["Global"][torch.ops.aten.convolution.default] / len(x),
        "flop_counter_dense": flops.get_total_flops() / 2 / len(x),
        "layers_by_hand": hand,
        "convolutions_that_ran": convolutions,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", nargs="*", default=[*SPECS, EVENTS])
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 4, 64])
    parser.add_argument("--out", type=Path, help="JSON file for the result")
    args = parser.parse_args()
    rows = []
    for spec in args.spec:
        shape = (8, 2, 64, 64) if spec == EVENTS else (3, 32, 32)
        model = prepared(spec, shape)
        one = torch.rand(1, *shape, generator=torch.Generator().manual_seed(1))
        for batch in args.batch:
            rows.append(row(spec, model, one.expand(batch, *shape).contiguous()))
            print(rows[-1], file=sys.stderr, flush=True)
    publish({**environment("cpu"), "rows": rows}, args.out, lambda *_: None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
