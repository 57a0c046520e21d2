"""The profile of a model on some inputs: by layer, operations, energy, firing rate, parameters and time.

Energy by the 45 nm figures that the field uses (Horowitz 2014, ISSCC): 4.6 pJ a multiply-accumulate, 0.9 pJ an
accumulation, in 32-bit floating point; and, apart, with memory traffic at 24.96 pJ a byte (3.12 pJ a bit, as the STEP
benchmark counts it, arXiv:2505.11151).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from st_utils.analysis.firing import FiringRates
from st_utils.analysis.operations import KINDS, OperationCounter, Products, kind_of
from st_utils.errors import UserError

PICO = 1e-9  # pJ in mJ


@dataclass(frozen=True)
class EnergyModel:
    """What an operation and a byte cost, in pJ.

    Memory traffic of a layer, an image: its weights once a time step, what enters it (a bit a spike, a byte an integer,
    four a real number), and of a neuron its membrane potential, four bytes, read and written at every time step.
    """

    mac_pj: float = 4.6
    ac_pj: float = 0.9
    byte_pj: float = 24.96

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value < float("inf"):
                raise UserError(f"{name} is {value}: give pJ, 0 or more")

    def operations(self, macs: float, acs: float) -> float:
        """mJ of so many operations."""
        return (macs * self.mac_pj + acs * self.ac_pj) * PICO


def profile(model: nn.Module, x: Tensor, energy: EnergyModel | None = None, rounds: int = 3) -> dict[str, Any]:
    """Profile a model in evaluation mode on a batch; every figure is an image's.

    Args:
        x: images `[B, C, H, W]` or frames `[B, T, C, H, W]`.
        rounds: timed passes; the fastest counts.

    Returns:
        Plain values: `layers`, a list of dicts in the order in which they ran (`name`, `kind`: convolution, product or
        node; `inputs`: silent, binary, integer or real; `macs`, `acs`, `firing_rate`, `sparsity`, `parameters`,
        `energy_mj`, `energy_memory_mj`, `ms`), and `totals` (`macs`, `sops`, `dense`, `parameters`, `energy_mj`,
        `energy_memory_mj`, `firing_rate`, `ms`, `spike_driven`, `not_spike_driven`, `silent`, `images`).
        `inputs` and `spike_driven` tell what can enter a layer, see `possible_inputs`; `silent` are the layers that
        no spike reached in this batch.
    """
    energy, was_training = energy or EnergyModel(), model.training
    model.eval()
    try:
        with torch.no_grad():
            layers, first = _count(model, x, energy)
            _time(model, x, layers, rounds)
    finally:
        model.train(was_training)
    return {"layers": list(layers.values()), "totals": _totals(model, layers, first, len(x)), "energy": asdict(energy)}


def _count(model: nn.Module, x: Tensor, energy: EnergyModel) -> tuple[dict[tuple[str, str], dict[str, Any]], str]:
    """The layers' figures in the model's order, and the name of the first that ran."""
    rates, steps = FiringRates(model), getattr(model, "step", None) or _steps(model, x)
    with rates.counting(), OperationCounter(model) as counter:
        for image in x.split(1):  # by itself: rounding, and so a spike here and there, depends on the batch size
            model(image)
    layers: dict[tuple[str, str], dict[str, Any]] = {}
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    possible = possible_inputs(model, x[:1])
    for key, found in counter.layers.items():
        layers[key] = _products(found, len(x), steps, energy)
        layers[key]["inputs"] = max(found.inputs, possible.get(key, "silent"), key=KINDS.index)
        layers[key]["silent"] = found.inputs == "silent"
    for name, rate in rates.by_layer().items():
        sites = rates.sites[name] / len(x)
        traffic = 8.0 * sites * energy.byte_pj * PICO
        layers[name, "node"] = _layer(name, "node", firing_rate=rate, sparsity=1 - rate, energy_memory_mj=traffic)
    first = next((name for name, _ in counter.layers), "")
    return dict(sorted(layers.items(), key=lambda item: order[item[0][0]])), first


def _steps(model: nn.Module, x: Tensor) -> int:
    """Time steps of the model on this input: the frames, or as many as its encoder makes of an image."""
    return x.shape[1] if x.dim() == 5 else getattr(getattr(model, "encoder", None), "step", 1)


def _layer(name: str, kind: str, **figures: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("inputs", "firing_rate", "sparsity", "ms"))
    zero = dict.fromkeys(("macs", "acs", "dense", "parameters", "energy_mj", "energy_memory_mj"), 0.0)
    return {"name": name, "kind": kind, **empty, **zero, **figures}


def _products(found: Products, images: int, steps: int, energy: EnergyModel) -> dict[str, Any]:
    macs, acs = found.macs / images, found.acs / images
    spent = energy.operations(macs, acs)
    traffic = (4.0 * found.parameters * steps + found.read / images) * energy.byte_pj * PICO
    return _layer(
        found.layer,
        found.operation,
        inputs=found.inputs,
        macs=macs,
        acs=acs,
        dense=found.dense / images,
        parameters=found.parameters,
        energy_mj=spent,
        energy_memory_mj=spent + traffic,
    )


def _totals(model: nn.Module, layers: dict, first: str, images: int) -> dict[str, Any]:
    found = list(layers.values())
    products = [layer for layer in found if layer["kind"] != "node"]
    rates = [layer["firing_rate"] for layer in found if layer["kind"] == "node"]
    offenders = not_spike_driven(products, first)
    return {
        "macs": sum(layer["macs"] for layer in products),
        "sops": sum(layer["acs"] for layer in products),
        "dense": sum(layer["dense"] for layer in products),
        "parameters": sum(p.numel() for p in model.parameters()),
        "energy_mj": sum(layer["energy_mj"] for layer in found),
        "energy_memory_mj": sum(layer["energy_memory_mj"] for layer in found),
        "firing_rate": sum(rates) / len(rates) if rates else None,
        "ms": sum(layer["ms"] or 0.0 for layer in found),
        "spike_driven": not offenders,
        "not_spike_driven": offenders,
        "silent": [layer["name"] for layer in products if layer["silent"]],
        "images": images,
    }


def not_spike_driven(products: list[dict[str, Any]], first: str) -> list[str]:
    """The layers but the first that runs (it sees the image) that something else than binary spikes can enter."""
    others = [layer for layer in products if layer["name"] != first]
    return [f"{layer['name']} ({layer['inputs']})" for layer in others if layer["inputs"] in ("integer", "real")]


def possible_inputs(model: nn.Module, x: Tensor) -> dict[tuple[str, str], str]:
    """What can enter each layer, of KINDS: what does while half of all spiking neurons fire at random.

    What the images and weights at hand show is less: a sum of two layers' spikes stays binary while one is silent,
    as in many a network that is not trained. Neurons whose output is no binary spike keep it.
    """
    draws = torch.Generator(x.device).manual_seed(0)

    def fire(node: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
        unit = getattr(node, "unit", 1.0)
        if kind_of(output / unit) in ("silent", "binary"):
            return unit * torch.rand(output.shape, generator=draws, device=x.device).round().to(output.dtype)
        return None

    handles = [node.register_forward_hook(fire) for node in FiringRates(model).nodes.values()]
    try:
        with OperationCounter(model) as counter:
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return {key: found.inputs for key, found in counter.layers.items()}


def _time(model: nn.Module, x: Tensor, layers: dict, rounds: int) -> None:
    """The fastest of some passes, layer by layer, an image, in ms; inner layers count for themselves alone."""
    modules = dict(model.named_modules())
    wait: Callable[[], None] = torch.cuda.synchronize if x.is_cuda else lambda: None
    best: dict[str, float] = {}
    for _ in range(rounds + 1):  # the first warms up
        spent: dict[str, float] = {}
        stack: list[list[Any]] = []

        def enter(module: nn.Module, _inputs: Any, stack: list = stack) -> None:
            wait()
            stack.append([time.perf_counter(), 0.0])

        handles = []
        for name in {name for name, _ in layers}:

            def leave(*_: Any, name: str = name, stack: list = stack, spent: dict = spent) -> None:
                wait()
                start, inner = stack.pop()
                took = time.perf_counter() - start
                spent[name] = spent.get(name, 0.0) + took - inner
                if stack:
                    stack[-1][1] += took

            handles += [modules[name].register_forward_pre_hook(enter), modules[name].register_forward_hook(leave)]
        model(x)
        for handle in handles:
            handle.remove()
        best = {name: min(took, best.get(name, took)) for name, took in spent.items()} if best else spent
    for (name, kind), layer in layers.items():
        if kind == "node" or (name, "node") not in layers:
            layer["ms"] = 1000 * best[name] / len(x) if name in best else None
