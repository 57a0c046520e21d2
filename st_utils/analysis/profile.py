"""Profile a model on a batch: operations, energy, firing rate, parameters and time of each layer and block, per image.

    found = profile(create_model("spikformer(depth=2)", img_size=32), torch.rand(8, 3, 32, 32))
    found["totals"]["sops"], found["totals"]["energy_mj"]
    EnergyModel().operations(macs=1e6, acs=1e9)     # 0.9046 mJ

The energy of a layer per image, E = 4.6 pJ MACs + 0.9 pJ ACs, has the 45 nm figures of 32-bit floating point that the
field uses (Horowitz 2014, ISSCC). Energy with memory traffic adds 24.96 pJ per byte (3.12 pJ per bit, as the STEP
benchmark counts it, arXiv:2505.11151), see `EnergyModel`. `operations.py` says what a MAC and an AC are.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from st_utils.analysis.firing import FiringRates
from st_utils.analysis.layer_names import ROLES, block_of, label, role_of
from st_utils.analysis.operations import KINDS, OperationCounter, Products, kind_of
from st_utils.errors import UserError

MJ_PER_PJ = 1e-9


@dataclass(frozen=True)
class EnergyModel:
    """The energy in pJ of a multiply-accumulate, an accumulation and a byte of memory traffic.

    With T time steps, the traffic per image is

        4 T P + read  bytes for a layer with P weights, which are read once per time step; `read` are the bytes of
                      its input: 1 bit per spike, 1 byte per whole number, 4 bytes per real number;
        8 T N         bytes for N neurons: each membrane potential, 4 bytes, is read and written in each time step.

    Raises UserError for a value that is negative or not finite.
    """

    mac_pj: float = 4.6
    ac_pj: float = 0.9
    byte_pj: float = 24.96

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value < float("inf"):
                raise UserError(f"{name} is {value}: give pJ, 0 or more")

    def operations(self, macs: float, acs: float) -> float:
        """The energy of `macs` multiply-accumulates and `acs` accumulations, in mJ."""
        return (macs * self.mac_pj + acs * self.ac_pj) * MJ_PER_PJ


def profile(model: nn.Module, x: Tensor, energy: EnergyModel | None = None, rounds: int = 3) -> dict[str, Any]:
    """Profile a model in evaluation mode on a batch; every figure is per image.

    Args:
        x: images `[B, C, H, W]` or frames `[B, T, C, H, W]`.
        energy: the energy of operations and traffic; by default the figures of 45 nm.
        rounds: the number of timed passes; the fastest counts.

    Returns:
        Plain values, for JSON. `layers` is a list of dicts in the model's order: `name`; `kind` (convolution, product
        or node); `inputs` (silent, binary, integer or real); `macs`, `acs` and `dense` (operations); `firing_rate`
        (spikes per neuron per step) and `sparsity` (1 - firing rate) of a node; `neuron_steps` (its neurons times T);
        `firing_by_step`, its rate in each time step (None where its steps can't be told apart), and in an attention
        with chunks of steps `firing_by_chunk`; `parameters` (weights); `energy_mj` and `energy_memory_mj` (mJ, without
        and with memory traffic); `ms` (milliseconds); `silent` (no spike reached the layer in this batch); `label`,
        `block` and `role`, see `layer_names.py`.
        `blocks` has the figures of each block, see `blocks_of`; `steps` is T.
        `totals` has the sums of these, `sops` (the sum of `acs`), `firing_rate` (the mean over layers),
        `spike_driven`, `not_spike_driven` (see the function), `silent` (the names of silent layers) and `images`.
        `inputs` and `spike_driven` are about everything that can enter a layer, see `possible_inputs`.
        `energy` has the constants of the `EnergyModel`.
    """
    energy, was_training = energy or EnergyModel(), model.training
    steps = getattr(model, "step", None) or _steps(model, x)
    model.eval()
    try:
        with torch.no_grad():
            layers, first = _count(model, x, energy, steps)
            _time(model, x, layers, rounds)
    finally:
        model.train(was_training)
    rows = list(layers.values())
    found = {"layers": rows, "blocks": blocks_of(rows), "steps": steps}
    return {**found, "totals": _totals(model, layers, first, len(x)), "energy": asdict(energy)}


def _count(
    model: nn.Module, x: Tensor, energy: EnergyModel, steps: int
) -> tuple[dict[tuple[str, str], dict[str, Any]], str]:
    """The figures of the layers, in the model's order, and the name of the layer that ran first."""
    rates = FiringRates(model, steps)
    with rates.counting(), OperationCounter(model) as counter:
        for image in x.split(1):  # one at a time: rounding depends on the batch size, and with it a few spikes
            model(image)
    layers: dict[tuple[str, str], dict[str, Any]] = {}
    modules = dict(model.named_modules())
    order = {name: place for place, name in enumerate(modules)}
    possible = possible_inputs(model, x[:1])
    for key, products in counter.layers.items():
        layers[key] = _products(products, len(x), steps, energy)
        layers[key]["inputs"] = max(products.inputs, possible.get(key, "silent"), key=KINDS.index)
        layers[key]["silent"] = products.inputs == "silent"
    by_step = rates.by_step()
    for name, rate in rates.by_layer().items():
        neuron_steps = rates.sites[name] / len(x)
        traffic = 8.0 * neuron_steps * energy.byte_pj * MJ_PER_PJ
        layers[name, "node"] = _layer(name, "node", firing_rate=rate, sparsity=1 - rate, energy_memory_mj=traffic)
        layers[name, "node"] |= {"neuron_steps": neuron_steps, "firing_by_step": by_step[name]}
        if chunk := _chunk(name, modules):
            layers[name, "node"]["firing_by_chunk"] = _means(by_step[name], chunk)
    for (name, _), layer in layers.items():
        layer |= {"label": label(name), "block": block_of(name), "role": role_of(name, modules)}
    first = next((name for name, _ in counter.layers), "")
    return dict(sorted(layers.items(), key=lambda item: order[item[0][0]])), first


def _steps(model: nn.Module, x: Tensor) -> int:
    """The number of time steps T on this input: of its frames, or of what the model's encoder makes of an image."""
    return x.shape[1] if x.dim() == 5 else getattr(getattr(model, "encoder", None), "step", 1)


def _chunk(name: str, modules: dict[str, nn.Module]) -> int | None:
    """The time steps per chunk of the attention that a node is in, if it has chunks."""
    words = name.split(".")
    parents = [modules.get(".".join(words[:end])) for end in range(len(words))]
    found = [m.chunk for m in parents if getattr(m, "part_kind", None) == "attention" and hasattr(m, "chunk")]
    return found[-1] if found else None


def _means(rates: list[float] | None, chunk: int) -> list[float] | None:
    """The mean rate in each chunk of steps."""
    if rates is None or len(rates) % chunk:
        return None
    return [sum(rates[start : start + chunk]) / chunk for start in range(0, len(rates), chunk)]


SUMS = ("macs", "acs", "dense", "parameters", "energy_mj", "energy_memory_mj", "ms")


def blocks_of(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures of each block: `name` (its path), `label`, and for the whole block and each of its `roles`

    `macs`, `acs`, `dense`, `parameters`, `energy_mj`, `energy_memory_mj`, `ms` (sums over its layers), `firing_rate`
    and `firing_by_step` (over all of its neurons; None without neurons, or where a node's steps can't be told apart).
    The roles are those of q, k, v, attention (the rest of it), mlp and other that the block has.
    """
    found = []
    for name in dict.fromkeys(layer["block"] for layer in layers):
        rows = [layer for layer in layers if layer["block"] == name]
        roles = {role: [row for row in rows if row["role"] == role] for role in ROLES}
        figures = {role: _summed(inner) for role, inner in roles.items() if inner}
        found.append({"name": name, "label": label(name), **_summed(rows), "roles": figures})
    return found


def _summed(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The sums of layers' figures, and the firing rates over all of their neurons."""
    nodes = [row for row in rows if row["kind"] == "node"]
    sites = sum(row["neuron_steps"] for row in nodes)
    rate = sum(row["firing_rate"] * row["neuron_steps"] for row in nodes) / sites if sites else None
    by_step = [[r * row["neuron_steps"] for r in row["firing_by_step"] or ()] for row in nodes]
    told = bool(nodes) and all(by_step)
    return {
        **{name: sum(row[name] or 0.0 for row in rows) for name in SUMS},
        "firing_rate": rate,
        "firing_by_step": [sum(step) / sites for step in zip(*by_step, strict=True)] if told else None,
    }


def _layer(name: str, kind: str, **figures: Any) -> dict[str, Any]:
    """A layer's row with these figures; the others are None or 0."""
    empty = dict.fromkeys(("inputs", "firing_rate", "firing_by_step", "sparsity", "neuron_steps", "ms"))
    zero = dict.fromkeys(("macs", "acs", "dense", "parameters", "energy_mj", "energy_memory_mj"), 0.0)
    return {"name": name, "kind": kind, **empty, **zero, **figures}


def _products(products: Products, images: int, steps: int, energy: EnergyModel) -> dict[str, Any]:
    """The row of a convolution or product, per image."""
    macs, acs = products.macs / images, products.acs / images
    spent = energy.operations(macs, acs)
    traffic = (4.0 * products.parameters * steps + products.read / images) * energy.byte_pj * MJ_PER_PJ
    return _layer(
        products.layer,
        products.operation,
        inputs=products.inputs,
        macs=macs,
        acs=acs,
        dense=products.dense / images,
        parameters=products.parameters,
        energy_mj=spent,
        energy_memory_mj=spent + traffic,
    )


def _totals(model: nn.Module, layers: dict[tuple[str, str], dict[str, Any]], first: str, images: int) -> dict[str, Any]:
    """The figures of the whole model, per image."""
    rows = list(layers.values())
    products = [layer for layer in rows if layer["kind"] != "node"]
    rates = [layer["firing_rate"] for layer in rows if layer["kind"] == "node"]
    offenders = not_spike_driven(products, first)
    return {
        "macs": sum(layer["macs"] for layer in products),
        "sops": sum(layer["acs"] for layer in products),
        "dense": sum(layer["dense"] for layer in products),
        "parameters": sum(p.numel() for p in model.parameters()),
        "energy_mj": sum(layer["energy_mj"] for layer in rows),
        "energy_memory_mj": sum(layer["energy_memory_mj"] for layer in rows),
        "firing_rate": sum(rates) / len(rates) if rates else None,
        "ms": sum(layer["ms"] or 0.0 for layer in rows),
        "spike_driven": not offenders,
        "not_spike_driven": offenders,
        "silent": [layer["name"] for layer in products if layer["silent"]],
        "images": images,
    }


def not_spike_driven(products: list[dict[str, Any]], first: str) -> list[str]:
    """The layers that anything but binary spikes can enter, without the `first`, whose input is the image."""
    others = [layer for layer in products if layer["name"] != first]
    return [f"{layer['name']} ({layer['inputs']})" for layer in others if layer["inputs"] in ("integer", "real")]


def possible_inputs(model: nn.Module, x: Tensor) -> dict[tuple[str, str], str]:
    """Find which of KINDS can enter each layer: those that do while half of the spiking neurons fire at random.

    The spikes of given images and weights show too little: a sum of two layers' spikes stays binary while one of the
    layers is silent, as in many untrained networks. Neurons whose output is not binary keep their output.
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
    return {key: products.inputs for key, products in counter.layers.items()}


def _time(model: nn.Module, x: Tensor, layers: dict[tuple[str, str], dict[str, Any]], rounds: int) -> None:
    """Write the milliseconds per image of each layer into `layers`: the fastest of `rounds` passes.

    The time of a layer inside another one counts for the inner layer alone.
    """
    modules = dict(model.named_modules())
    wait: Callable[[], None] = torch.cuda.synchronize if x.is_cuda else lambda: None
    best: dict[str, float] = {}
    for _ in range(rounds + 1):  # one pass more, which warms up
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
