"""The spikes of single inputs: which neuron of which layer fires in which time step, and how the output grows.

    layers = record_spikes(model, images[:1])          # a Layer for each node that ran
    layers[0].raster.shape, layers[0].total            # torch.Size([4, 128]), 312.0
    shown = record_output(model, images)               # what the classes have gathered by each step
    shown.gathered[-1].argmax(1)                       # the predicted classes

The spikes of a layer are the outputs of its node, as in `firing.py`: whole numbers times the node's `unit`.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from st_utils.analysis.firing import FiringRates
from st_utils.analysis.hooks import evaluating, outputs_of
from st_utils.errors import UserError


class Layer(NamedTuple):
    """The spikes of one layer of N neurons over T time steps.

    Attributes:
        name: of the node in the model.
        raster: outputs of the chosen neurons, `[T, n]`.
        chosen: their numbers among the N neurons of a sample, `[n]`, see `spread`.
        per_step: the sum over all N neurons in each step, float64 `[T]`.
        neurons: N.
    """

    name: str
    raster: Tensor
    chosen: Tensor
    per_step: Tensor
    neurons: int

    @property
    def total(self) -> float:
        """The spikes of all neurons in all steps, as `FiringRates.spikes` counts them."""
        return float(self.per_step.sum())

    @property
    def rate(self) -> float:
        """Spikes per neuron per step."""
        return self.total / (self.neurons * len(self.per_step))


class Output(NamedTuple):
    """What a model's outputs gather over T time steps, for B inputs.

    Attributes:
        gathered: `[T, B, classes]`, up to and with each step: the number of spikes where the outputs are neurons, else
            the sum of the logits divided by T, which ends at their mean over T.
        spiking: whether the outputs are neurons: one of the model's nodes emits what the model returns.
        predicted: the classes that the model's answer without `per_step` gives, `[B]`.
        frames: what the encoder makes of the inputs, `[T, B, C, H, W]`; None of a model without an encoder.
    """

    gathered: Tensor
    spiking: bool
    predicted: Tensor
    frames: Tensor | None


@torch.no_grad()
def record_spikes(model: nn.Module, x: Tensor, neurons: int | None = 128) -> list[Layer]:
    """Record the spikes of each layer for one input, in evaluation mode, in the order in which the layers run.

    Args:
        x: one image `[1, C, H, W]` or one sample's frames `[1, T, C, H, W]`.
        neurons: keep the spikes of at most this many neurons of a layer; None keeps all.

    Raises UserError for a model without spiking neurons.
    """
    assert len(x) == 1, "a raster shows one input"
    nodes = FiringRates(model).nodes
    if not nodes:
        raise UserError(f"{_name(model)} has no spiking neurons: there are no spikes to show; try --show embedding")
    seen: dict[str, list[Tensor]] = {}
    with (
        evaluating(model),
        same_draws(),
        outputs_of(nodes, lambda name, output: seen.setdefault(name, []).append(output)),
    ):
        model(x)
    return [_layer(name, calls, neurons) for name, calls in seen.items()]


def _layer(name: str, calls: list[Tensor], neurons: int | None) -> Layer:
    """The layer of a node's outputs `[T, ...]`; of a node that is called step by step, or twice, those of all calls."""
    flat = [output.detach().flatten(1) for output in calls]
    step_by_step = len(flat) > 1 and len(flat[0]) == 1
    spikes = torch.cat(flat, 0 if step_by_step else 1)
    count = spikes.shape[1]
    chosen = spread(count if neurons is None else min(neurons, count), count)
    per_step = spikes.sum(1, dtype=torch.float64)
    return Layer(name, spikes[:, chosen.to(spikes.device)].float().cpu(), chosen, per_step.cpu(), count)


def spread(count: int, total: int) -> Tensor:
    """`count` of the numbers 0 to total - 1, one of each of `count` equal parts, int64 `[count]`.

    Where in its part a number lies changes by the golden ratio: at a fixed distance, of 64 say, all neurons of an 8 x 8
    map would be those of its first pixel.
    """
    starts = torch.arange(count + 1) * total // count
    places = (torch.arange(count, dtype=torch.float64) * (5**0.5 - 1) / 2) % 1
    return starts[:-1] + (places * (starts[1:] - starts[:-1])).long()


@torch.no_grad()
def record_output(model: nn.Module, x: Tensor) -> Output:
    """Record what the outputs gather over the time steps, in evaluation mode.

    Args:
        x: images `[B, C, H, W]` or frames `[B, T, C, H, W]`.

    Raises UserError for a model that does not give the logits of each step.
    """
    if "per_step" not in inspect.signature(model.forward).parameters:
        raise UserError(f"{_name(model)} gives no logits by time step: let its forward take per_step=True")
    nodes, encoder = FiringRates(model).nodes, getattr(model, "encoder", None)
    watched = {**nodes, **({"encoder": encoder} if isinstance(encoder, nn.Module) else {})}
    seen: dict[str, Tensor] = {}
    with evaluating(model):
        with same_draws():
            predicted = model(x).argmax(1)
        with same_draws(), outputs_of(watched, seen.__setitem__):
            logits = model(x, per_step=True)
    frames = seen.pop("encoder", None)
    spiking = any(output.data_ptr() == logits.data_ptr() for output in seen.values())  # one memory, not equal values
    gathered = logits.float().cumsum(0) / (1 if spiking else len(logits))
    return Output(gathered.cpu(), spiking, predicted.cpu(), None if frames is None else frames.float().cpu())


@contextmanager
def same_draws() -> Iterator[None]:
    """Inside, an encoder that draws its spikes draws the same in each pass on an input; nobody else's draws change.

    Else raster, input and prediction of one picture would belong to different spike trains.
    """
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(0)
        yield


def _name(model: nn.Module) -> str:
    return getattr(model, "spec", type(model).__name__)
