"""The energy of a spiking model against a dense quantised network of the same shape, and the rate where both are equal.

    counts = count(of_spec("spikformer", 8))
    break_even(counts, COMPARISONS["8 bits against 8 bits, operations"])       # spikes per input and step
    counts.rate                                                                # what the model has

The dense network has the same layers, computes each once where the spiking one computes it in T steps, multiplies by
zeros too, and has `bits` bits per activation. Energies are those at 45 nm (Horowitz 2014, ISSCC, figure 1.1.9) in pJ:

    8-bit multiplication 0.2 (of a weight with b bits: 0.2 b / 8, an assumption), 32-bit addition 0.1
    float32: multiply-accumulate 4.6, addition 0.9; a byte of traffic 24.96, as in st_utils/analysis/profile.py

    E_dense   = (image + real / T + dense) (multiply + add) + byte (P + A b / 8)
    E_spiking = (image + real) (multiply + add) + r T dense add + byte (weights + activations + membranes)

for P weights, A activations that are read, `dense` multiply-accumulates per step of the layers that spikes enter, and
the rate r of spikes per input and step. Traffic of the spiking model is counted in two ways: "layer by layer", as this
zoo computes (all steps of a layer before the next: weights are read once, membranes stay in registers), and "step by
step", as `profile` counts it (weights are read in each step, each membrane is read and written). The rate where both
energies are equal is linear in all this; a model that fires less often needs less energy than the dense network.

Yan, Bai, Tang and Wong (arXiv:2409.08290) compare with a network of ceil(log2(T + 1)) bits, which tells apart as many
values as T steps do, and count movements on a chip in more detail than this. Their break-even is 5.7 % at T = 5.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.engines.prepare import Subject
from st_utils.analysis.operations import PRODUCTS, aten
from st_utils.analysis.profile import MJ_PER_PJ, EnergyModel, profile

MULTIPLY_INT8, ADD_INT32 = 0.2, 0.1  # pJ


class Counts(NamedTuple):
    """What a model computes and reads per image.

    Attributes:
        steps: T.
        image: multiply-accumulates of the first layer, which computes the still image once.
        real: multiply-accumulates of other layers whose input is neither spikes nor counts of them, in all steps.
        dense: multiply-accumulates, zeros included, of one step of all other products.
        acs: accumulations in all steps.
        weights: the number of weights.
        activations: the numbers that all layers read in one step.
        read: bytes of these in all steps: 1 bit per spike, 1 byte per count, 4 bytes per real number.
        neurons: the number of neurons.
    """

    steps: int
    image: float
    real: float
    dense: float
    acs: float
    weights: float
    activations: float
    read: float
    neurons: float

    @property
    def rate(self) -> float:
        """Spikes per input and step, each weighted with the weights that it meets."""
        return self.acs / (self.steps * self.dense)


class Comparison(NamedTuple):
    """Which spiking network is compared with which dense one.

    Attributes:
        float32: the spiking network's weights; False: 8 bits, summed in 32.
        bits: of the dense network's activations; None: ceil(log2(T + 1)). Its weights have 8 bits.
        traffic: "none", "layer by layer" or "step by step".
    """

    float32: bool = False
    bits: int | None = 8
    traffic: str = "none"

    def bits_at(self, steps: int) -> int:
        """The bits of the dense network's activations where the spiking one has T steps."""
        return math.ceil(math.log2(steps + 1)) if self.bits is None else self.bits


COMPARISONS = {
    "float32 against 8 bits, operations": Comparison(float32=True),
    "8 bits against 8 bits, operations": Comparison(),
    "8 bits against log2(T + 1) bits, operations": Comparison(bits=None),
    "8 bits against 8 bits, with memory, layer by layer": Comparison(traffic="layer by layer"),
    "8 bits against log2(T + 1) bits, with memory, layer by layer": Comparison(bits=None, traffic="layer by layer"),
    "8 bits against 8 bits, with memory, step by step": Comparison(traffic="step by step"),
}


class _ActivationsRead(TorchDispatchMode):
    """Counts the numbers that products read, without weights: `first` of the first product, `all` of all."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.first = self.all = 0
        self._weights = {p.data_ptr() for p in model.parameters()}

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        places = (0, 1) if func.overloadpacket is aten.convolution else PRODUCTS.get(func.overloadpacket, ())
        operands = [args[place] for place in places]
        read = sum(x.numel() for x in operands if isinstance(x, Tensor) and x.data_ptr() not in self._weights)
        self.first, self.all = self.first or read, self.all + read
        return func(*args, **(kwargs or {}))


def count(subject: Subject) -> Counts:
    """The counts of a model on its images, from `profile`: each spike at its own place."""
    model, images, byte = subject.model, subject.images, EnergyModel().byte_pj * MJ_PER_PJ
    found = profile(model, images, rounds=0)
    with torch.no_grad(), _ActivationsRead(model) as reads:
        model(images[:1])
    steps = found["steps"]
    products = [layer for layer in found["layers"] if layer["kind"] != "node"]
    first, others = products[0], products[1:]
    traffic = sum(layer["energy_memory_mj"] - layer["energy_mj"] for layer in products) / byte
    return Counts(
        steps=steps,
        image=first["macs"],
        real=sum(layer["macs"] for layer in others),
        dense=sum(layer["dense"] - layer["macs"] for layer in others) / steps,
        acs=sum(layer["acs"] for layer in products),
        weights=sum(layer["parameters"] for layer in products),
        activations=reads.first + (reads.all - reads.first) / steps,
        read=traffic - 4 * steps * sum(layer["parameters"] for layer in products),
        neurons=sum(layer["neuron_steps"] for layer in found["layers"] if layer["kind"] == "node") / steps,
    )


def dense_energy(counts: Counts, comparison: Comparison) -> float:
    """The energy of the dense network in pJ per image."""
    c, bits, byte = counts, comparison.bits_at(counts.steps), EnergyModel().byte_pj
    macs = c.image + c.real / c.steps + c.dense
    traffic = c.weights + c.activations * bits / 8 if comparison.traffic != "none" else 0.0
    return macs * (MULTIPLY_INT8 * bits / 8 + ADD_INT32) + traffic * byte


def spiking_energy(counts: Counts, comparison: Comparison, rate: float | None = None) -> float:
    """The energy of the spiking model in pJ per image, at its own rate or at another."""
    c, model = counts, EnergyModel()
    mac, add = (model.mac_pj, model.ac_pj) if comparison.float32 else (MULTIPLY_INT8 + ADD_INT32, ADD_INT32)
    width = 4.0 if comparison.float32 else 1.0  # bytes of a weight
    traffic = {
        "none": 0.0,
        "layer by layer": width * c.weights + c.read,
        "step by step": width * c.steps * c.weights + c.read + 8.0 * c.steps * c.neurons,
    }[comparison.traffic]
    accumulations = c.acs if rate is None else rate * c.steps * c.dense
    return (c.image + c.real) * mac + accumulations * add + traffic * model.byte_pj


def break_even(counts: Counts, comparison: Comparison) -> float:
    """The rate at which both networks need the same energy; negative where a silent model already needs more."""
    silent, all_fire = (spiking_energy(counts, comparison, rate) for rate in (0.0, 1.0))
    return (dense_energy(counts, comparison) - silent) / (all_fire - silent)


def energies(subject: Subject) -> dict[str, Any]:
    """A row of the result: the counts, and both energies (mJ) and the rate of the break-even of each comparison."""
    counts = count(subject)
    compared = {
        name: {
            "spiking_mj": spiking_energy(counts, comparison) * MJ_PER_PJ,
            "dense_mj": dense_energy(counts, comparison) * MJ_PER_PJ,
            "dense_bits": comparison.bits_at(counts.steps),
            "break_even_rate": break_even(counts, comparison),
        }
        for name, comparison in COMPARISONS.items()
    }
    row = {"model": subject.name, "origin": subject.origin, "rate": counts.rate}
    return row | {"counts": counts._asdict(), "comparisons": compared}
