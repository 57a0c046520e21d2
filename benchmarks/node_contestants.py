"""The contestants of benchmarks/nodes.py: functions of `[T, ...]` currents, each beside the definition it must equal.

contestants(steps=4, device="cpu", quick=True)["zoo"](torch.randn(4, 64, 96)).shape     # [4, 64, 96], spikes
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from registry import create
from st_utils.braincog.nodes import neuron_class
from st_utils.kernels.node import cpu
from st_utils.layer.norm_then_fire import norm_then_fire

LONGEST_COMPILED = 16  # torch.compile unrolls SpikingJelly's loop: beyond, compiling takes minutes
Run = Callable[[Tensor], Tensor]


def braincog(steps: int) -> Run:
    from braincog.base.strategy.surrogate import SigmoidGrad

    node = neuron_class("LIFNode")(threshold=1.0, tau=2.0, step=steps, layer_by_layer=True)
    node.act_fun = SigmoidGrad(alpha=4.0, requires_grad=False)

    def run(x: Tensor) -> Tensor:
        node.n_reset()
        return node(x.flatten(0, 1)).view_as(x)

    return run


def spikingjelly(backend: str, norm: nn.Module | None = None) -> Run:
    from spikingjelly.activation_based import neuron

    node = neuron.LIFNode(tau=2.0, detach_reset=True, step_mode="m")
    node.backend = "triton" if backend == "triton" else "torch"

    def layer(x: Tensor) -> Tensor:
        return node(norm(x.flatten(0, 1)).view_as(x)) if norm else node(x)

    call = torch.compile(layer) if backend == "compiled" else layer

    def run(x: Tensor) -> Tensor:
        node.reset()
        return call(x)

    return run


def snntorch(device: str) -> Run:
    import snntorch
    from snntorch import surrogate

    settings = {"spike_grad": surrogate.sigmoid(slope=4), "reset_mechanism": "zero", "reset_delay": False}
    node = snntorch.Leaky(beta=0.5, **settings).to(device)

    def run(x: Tensor) -> Tensor:
        membrane, spikes = torch.zeros_like(x[0]), []
        for current in x:
            spike, membrane = node(current, membrane)
            spikes.append(spike)
        return torch.stack(spikes)

    return run


def definition(name: str) -> str:
    if name == "snntorch":
        return "lif(backend=torch, decay_input=false, detach_reset=false)"
    return "plif(backend=torch)" if name == "zoo plif" else "lif(backend=torch)"


def contestants(steps: int, device: str, quick: bool) -> dict[str, Run]:
    runs = {"zoo": create("node", "lif").to(device), "zoo plif": create("node", "plif").to(device)}
    runs["zoo plain torch"] = create("node", "lif(backend=torch)").to(device)
    runs["braincog"] = braincog(steps)
    if quick:
        return runs
    runs["spikingjelly"] = spikingjelly("eager")
    if steps <= LONGEST_COMPILED:
        runs["spikingjelly compiled"] = spikingjelly("compiled")
    if device != "cpu":
        runs["spikingjelly triton"] = spikingjelly("triton")
    return runs | {"snntorch": snntorch(device)}


class KernelAlone:
    """The kernels of this zoo's `lif` on the CPU, called into existing memory: no operator, no autograd.

    alone = KernelAlone(x)
    alone.forward(), alone.both(grad)       # alone.spikes and alone.gradient are written, each time the same memory
    """

    def __init__(self, x: Tensor):
        node = create("node", "lif")
        self.x, self.form = x, node.form()._replace(decay=float(node.decay()))
        self.spikes, self.gradient = torch.empty_like(x), torch.empty_like(x)

    def forward(self) -> Tensor:
        """The spikes of x."""
        return cpu.forward_into(self.spikes, self.x, None, self.form)

    def both(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """The spikes of x, and dL/dx from dL/ds."""
        return self.forward(), cpu.backward_into(self.gradient, grad, self.x, None, self.form)[0]


class Pair(nn.Module):
    """Batch norm and a neuron: in one kernel, or one after the other."""

    def __init__(self, channels: int, node: Run, fused: bool = False):
        super().__init__()
        self.norm, self.node, self.fused = nn.BatchNorm2d(channels), node, fused

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            return norm_then_fire(self.norm, self.node, x)
        return self.node(self.norm(x.flatten(0, 1)).view_as(x))


def pairs(channels: int, steps: int, device: str, quick: bool) -> dict[str, Run]:
    runs = {"zoo": Pair(channels, create("node", "lif"), fused=True)}
    runs["zoo norm, then node"] = Pair(channels, create("node", "lif"))
    runs["zoo plain torch"] = Pair(channels, create("node", "lif(backend=torch)"))
    runs["braincog"] = Pair(channels, braincog(steps))
    runs = {name: run.to(device) for name, run in runs.items()}
    for backend in () if quick else ("eager", "compiled", *(("triton",) if device != "cpu" else ())):
        name = "spikingjelly" if backend == "eager" else f"spikingjelly {backend}"
        runs[name] = spikingjelly(backend, nn.BatchNorm2d(channels).to(device))
    return runs
