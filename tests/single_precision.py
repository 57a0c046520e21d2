"""Float32 against the golden files: which spikes differ, and by how much outputs and gradients do, plain and fused.

    model = Golden(golden.FOLDER / "sdt.json")
    differences(model, train=False)["fused"].spikes      # how many differ from float64, of model.spikes

A run in float32 is compared with the same model in float64 in plain torch, which gives the authors' float64 numbers
(tests/zoo/test_golden.py), spike by spike; its output, where `f32/` has it, with that of the authors' class in float32.

One spike that differs changes whatever comes after it. So runs are made whose layers get the float64 run's spikes,
whatever the neurons before them fired ("forced"): each layer is then compared by itself, and a spike that differs there
is one whose potential is within rounding of the threshold, or it is a mistake.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn

from st_utils.encoder import direct
from st_utils.kernels.spike_conv import op as sparse_conv
from st_utils.layer.fold_norms import fold_norms
from st_utils.node.base import IntegrateAndFire
from tests import golden_numbers as golden
from tests.watched import Watch
from tests.zoo.test_golden import PATTERNS, build, run

FILES = golden.files(*PATTERNS, "transfer_vgg*", "transfer_resnet18*")


class Way(NamedTuple):
    """One way to run a model in float32.

    `fused`: the nodes' backend is auto, with norm and neuron as one where that applies; else it is torch. `additions`:
    the convolutions of spikes by additions, wherever an input's form allows it ("all"), where the program finds it
    worth while ("auto") or nowhere ("none"). `folded`: batch norms in the convolutions' weights. `last`: the channels
    last in memory, for which torch's convolutions and norms sum in another order. `double`: in float64.
    """

    fused: bool
    additions: str = "none"
    folded: bool = False
    last: bool = True
    double: bool = False


PLAIN = Way(fused=False)
# The definition in two orders of summation, which `other_float32` of the golden files has too: what they differ by
# from float64, or from one another, float32 alone makes of it.
ORDERS = {"plain": PLAIN, "channels first": Way(False, last=False)}
FUSED = {"fused": Way(True, "auto"), "additions": Way(True, "all")}
FOLDED = {"folded": Way(True, "auto", folded=True), "folded, additions": Way(True, "all", folded=True)}


class Result(NamedTuple):
    """A run's output, the parameters' gradients of the golden files' loss (in training), and what was seen."""

    output: Tensor
    gradients: dict[str, Tensor]
    watch: Watch


class Golden:
    """A golden file's model and input, to be run in float64 and in any way in float32."""

    def __init__(self, path: Path):
        self.name, self.numbers, self.single = path.stem, golden.read(path), golden.single(path)
        self.model, *self.inputs = build(self.numbers)
        if "input2" in self.numbers:
            self.inputs.append(golden.draw("input2", self.numbers["input2"]))

    def __call__(self, way: Way | None, train: bool, watch: Watch | None = None) -> Result:
        """Run in float32 that way, or with None in float64 in plain torch."""
        watch, way = watch or Watch(), way or PLAIN._replace(double=True)
        model = prepared(self.model, way)
        inputs = self.inputs if way.double else [x.float() for x in self.inputs]
        with settings(way), watch.watching(), torch.set_grad_enabled(train):
            model.train(train)
            output = model(*inputs)[0] if len(inputs) > 1 else run(model, *inputs, self.numbers)
            if train:
                golden.loss_of(output).backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        return Result(output.detach(), gradients, watch)


def prepared(model: nn.Module, way: Way) -> nn.Module:
    """A copy of the float64 model that runs that way."""
    model = copy.deepcopy(model)
    model = model if way.double else model.float()
    for module in model.modules():
        if isinstance(module, IntegrateAndFire) and not way.fused:
            module.backend = "torch"
    return fold_norms(model) if way.folded else model


@contextlib.contextmanager
def settings(way: Way) -> Iterator[None]:
    """The orders of summation of a way, while it runs."""
    with contextlib.ExitStack() as stack:
        if way.additions == "none":
            stack.enter_context(mock.patch.object(sparse_conv, "worthwhile", return_value=False))
        if way.additions == "all":
            stack.enter_context(mock.patch.object(sparse_conv, "LEAST", 0))
        if not way.last:
            stack.enter_context(mock.patch.object(direct, "to_channels_last", _as_it_is))
        yield


def _as_it_is(x: Tensor) -> Tensor:
    return x


# -- differences -------------------------------------------------------------------------------------------
def relative(now: Tensor, wanted: Tensor) -> float:
    """The L2 norm of the difference, of that of what is wanted: `to_float64.relative` of the golden files."""
    return ((now.double() - wanted).norm() / wanted.norm()).item()


def furthest(now: Tensor, wanted: Tensor) -> float:
    return (now.double() - wanted).abs().max().item()


def differing(result: Result, wanted: Result) -> int:
    """How many spikes differ."""
    pairs = zip(result.watch.calls, wanted.watch.calls, strict=True)
    return sum(int((a.spikes != b.spikes).sum()) for a, b in pairs)


def gradient_errors(result: Result, wanted: Result) -> tuple[float, float]:
    """The largest L2 error of a parameter's gradient, beside that gradient's norm and beside all gradients' norm.

    The first leaves out gradients below a millionth of all: some are 0 but for rounding, as of a bias before a norm.
    """
    assert result.gradients.keys() == wanted.gradients.keys()
    norms = {name: g.norm().item() for name, g in wanted.gradients.items()}
    total = math.hypot(*norms.values())
    errors = {name: (result.gradients[name].double() - g).norm().item() for name, g in wanted.gradients.items()}
    of_own = [error / norms[name] for name, error in errors.items() if norms[name] > 1e-6 * total]
    return max(of_own), max(errors.values()) / total


class Difference(NamedTuple):
    """How far a run in float32 is from float64.

    Free: `furthest` and `relative` of the output, `spikes` that differ. Forced: `flips`, the neurons with a spike that
    differs; `margin`, the farthest of their float64 potentials from the threshold when the first did, and of what max
    pooling picks otherwise from the largest; `rounding`, the
    farthest that a potential is from its float64 value (plain torch alone); `forced`, relative, of the output;
    `gradients`, see `gradient_errors`, with none through those neurons in either precision.
    """

    furthest: float
    relative: float
    spikes: int
    flips: int
    margin: float
    rounding: float
    forced: float
    gradients: tuple[float, float]
    free: Result


def differences(model: Golden, train: bool, ways: dict[str, Way] | None = None) -> dict[str, Difference]:
    """Of each way to run a golden file's model in float32; in training there is nothing to fold."""
    wanted = model(None, train, Watch(margins=True))
    ways = ways or {**ORDERS, **FUSED, **({} if train else FOLDED)}
    force = [call.spikes for call in wanted.watch.calls]
    masked: dict[bytes, Result] = {}  # float64 without gradients through some neurons

    def without(kept: list[Tensor]) -> Result:
        key = torch.cat([k.flatten() for k in kept]).numpy().tobytes()
        if key not in masked:
            masked[key] = model(None, train, Watch(force=force, kept=kept, force_picks=wanted.watch.picks))
        return masked[key]

    return {name: _difference(model, way, train, wanted, without) for name, way in ways.items()}


def _difference(
    model: Golden, way: Way, train: bool, wanted: Result, without: Callable[[list[Tensor]], Result]
) -> Difference:
    force = [call.spikes for call in wanted.watch.calls]
    forced = model(way, train, Watch(margins=not way.fused, force=force, force_picks=wanted.watch.picks))
    flips, kept, margin, rounding = 0, [], forced.watch.gap, 0.0
    for at, (call, double) in enumerate(zip(forced.watch.calls, wanted.watch.calls, strict=True)):
        differ = forced.watch.flips(at)
        kept.append(~differ.any(0))
        first = differ & (differ.cumsum(0) == 1)  # what comes later in time follows from it
        if first.any():
            flips += int(first.sum())
            margin = max(margin, double.margin[first].max().item())
        if call.margin is not None:
            away = (call.margin.double() - double.margin).abs() * kept[-1]
            rounding = max(rounding, away.max().item())
    free = model(way, train) if flips else forced
    gradients = 0.0, 0.0
    if train:
        gradients = gradient_errors(forced, without(kept) if flips else wanted)
    of_output = furthest(free.output, wanted.output), relative(free.output, wanted.output), differing(free, wanted)
    return Difference(*of_output, flips, margin, rounding, relative(forced.output, wanted.output), gradients, free)


# -- the authors' float32 ----------------------------------------------------------------------------------
def uses(result: Result, numbers: dict, steps: bool = False) -> list[Tensor]:
    """The spikes of each use of a spiking layer, in the order of the golden files' `firing`.

    A node that runs on for longer than the model's steps is used several times; one that takes step and sample for one
    axis (QKFormer's leak), once. With `steps` each step of a network with two domains is a use, as the authors run it.
    """
    shape, layout = numbers["input"]["shape"], numbers["input"]["layout"]
    spikes = [call.spikes for call in result.watch.calls]
    step = shape[1] if layout == "BTCHW" else len(spikes[0])
    found = [use for s in spikes for use in ([s] if s.shape[1] % shape[0] else s.split(step))]
    if not steps:
        return found
    domains = found[: len(found) // 2], found[len(found) // 2 :]
    return [use[t] for domain in domains for t in range(step) for use in domain]


def firing_differs(result: Result, numbers: dict, single: dict) -> int:
    """How many spikes are missing or too many, beside the authors' float32, summed over the uses of layers."""
    found = uses(result, numbers, steps=len(single["firing"]) > len(numbers["firing"]))
    theirs = zip(found, single["firing"], strict=True)
    return sum(abs(int((use != 0).sum()) - round(rate * use.numel())) for use, rate in theirs)
