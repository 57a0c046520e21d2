"""Operations of whole models, counted by this project and by others: do they agree?

    python -m benchmarks.counts [--batch 1 4 64] [--spec SPEC ...] [--out FILE.json]

Untrained models at published sizes, their norms settled on one batch so that they fire as in training. Per image:

    dense          multiply-accumulates of all products without regard to zeros: ours, torch's FlopCounterMode (half
                   its operations), and by hand from the shapes that the layers and the attentions' products saw
    accumulations  ours, with the additions over spikes and the fused neurons allowed and forbidden outside of the
                   count; SpikingJelly's SynOpCounter and MACCounter on the same pass. Theirs takes a tensor of
                   integers for real numbers, so ours is told for layers that see spikes alone, too.
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
from st_utils.kernels import op, sparse_conv
from st_utils.training.run_folder import environment

SPECS = ("spikformer", "sdt", "qkformer", "spikingresformer", "dta_snn18", "sdt_v3")
EVENTS = 'sdt(embed_dim=256, depth=2, embedding=ms_sps(pooling="1111"), step=8)'  # on [B, 8, 2, 64, 64]


def prepared(spec: str, shape: tuple[int, ...]) -> nn.Module:
    """The model in evaluation, firing as on a batch of random images or frames in training."""
    torch.manual_seed(0)
    side = {"img_size": shape[-1], "in_channels": shape[-3]}
    return settle(zoo.create_model(spec, **side), torch.rand(8, *shape)).eval()


@torch.no_grad()
def counted(model: nn.Module, x: Tensor) -> dict[str, float]:
    """Ours, per image."""
    with OperationCounter(model) as counter:
        model(x)
    found = counter.layers.values()
    spikes = [layer.acs for layer in found if layer.inputs in ("silent", "binary")]
    sums = {"acs": sum(layer.acs for layer in found), "spike_acs": sum(spikes)}
    sums |= {name: sum(getattr(layer, name) for layer in found) for name in ("macs", "dense")}
    return {
        **{name: value / len(x) for name, value in sums.items()},
        "convolutions": sum(layer.operation == "convolution" for layer in found),
    }


@torch.no_grad()
def by_hand(model: nn.Module, x: Tensor) -> tuple[float, int]:
    """Multiply-accumulates of the layers with weights, from the shapes of their outputs; and the convolutions seen."""
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
    """All counts for one model and batch."""
    ours = counted(model, x)
    with (
        mock.patch.object(sparse_conv, "_available", lambda: False),
        mock.patch.object(op, "_available", lambda _: False),
    ):
        op._check.cache_clear()
        off = counted(model, x)
    op._check.cache_clear()
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
        "spikingjelly_synops": theirs.get_total() / len(x),
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
