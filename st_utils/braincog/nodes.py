"""`braincog.<ClassName>`: BrainCog's neuron classes as nodes, unchanged, run over the time axis.

    import torch
    from registry import create

    create("node", "braincog.LIFNode(tau=2.0)")(torch.ones(4, 1))[:, 0].tolist()  # [0.0, 1.0, 0.0, 1.0]

Every neuron class of BrainCog is listed. One that can't be a layer says why when it is built (`REFUSED`).
Source: github.com/BrainCog-X/Brain-Cog, checked with 0.2.7.19.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from registry import create, register
from st_utils.braincog.imports import PREFIX, VERSION, import_braincog, neuron_modules
from st_utils.errors import UserError


class Neuron(NamedTuple):
    """A neuron class of BrainCog: its formula, which `--list` shows, and the names of the arguments that it reads."""

    formula: str
    reads: str


# BrainCog's classes also take arguments that they ignore (LIFNode's dt, IzhNode's tau); these are unknown arguments
# here. v_reset is the membrane potential at the start; a spike resets it to 0, whatever v_reset is, as in BrainCog.
# step is stored and not read: T is the input's.
_FIRES = "step threshold act_fun requires_thres_grad"
_STARTS = f"{_FIRES} mem_detach v_reset"
_LEAKS = f"{_STARTS} tau dt sigmoid_thres"
NODES: dict[str, Neuron] = {
    "IFNode": Neuron("v += x dt", f"{_STARTS} dt sigmoid_thres"),
    "LIFNode": Neuron("v += (x - v) / tau", f"{_STARTS} tau"),
    "BurstLIFNode": Neuron("LIFNode that fires counts: 0, 1, 3, 4.5, 6, 7.5", f"{_STARTS} tau"),
    "BackEINode": Neuron(
        "v = decay v + sigmoid(conv(s)) x; a spike has the sign of conv(v); for [T, B, channel, H, W]",
        f"{_FIRES} mem_detach decay th_fun channel if_back if_ei cfg_backei",
    ),
    "NoiseLIFNode": Neuron("v += ((x - v) / tau + beta noise) dt", f"{_LEAKS} log_alpha log_beta"),
    "BiasLIFNode": Neuron("v += (x - v) / tau dt + 0.1", _LEAKS),
    "LIFSTDPNode": Neuron("v = tau v + x: tau is the share that stays, 2 by default", f"{_STARTS} tau"),
    "PLIFNode": Neuron("v += (x - v) sigmoid(w) dt, w learned from -ln(tau - 1)", _LEAKS),
    "NoisePLIFNode": Neuron("PLIFNode with NoiseLIFNode's noise", f"{_LEAKS} log_alpha log_beta"),
    "BiasPLIFNode": Neuron("v += ((x - v) sigmoid(w) + 0.1) dt, w learned", _LEAKS),
    "IzhNode": Neuron("Izhikevich's neuron from 0 mV, in mV", f"{_FIRES} mem_detach sigmoid_thres dt a b c d"),
    "IzhNodeMU": Neuron("Izhikevich's neuron from -70 mV, in mV", f"{_FIRES} mem_detach dt a b c d"),
    "SimHHNode": Neuron("Hodgkin and Huxley's neuron with dt 0.01, in mV", _FIRES),
}
REFUSED = {
    "BaseNode": "it is the abstract base class; choose a neuron that derives from it",
    "BaseMCNode": "it is the abstract base class of the neurons with compartments",
    "ThreeCompNode": "it needs two input currents, basal and apical, where a layer has one",
    "ReLUNode": "it returns ReLU activations, not spikes",
    "BiasReLUNode": "it returns ReLU activations, not spikes",
    "DoubleSidePLIFNode": "it always fails: BrainCog subtracts from the method get_thres, not from its value",
    "DGLIFNode": "it returns the membrane where that is over the threshold, not spikes",
    "HTDGLIFNode": "it returns the membrane where that is over the threshold, not spikes",
    "LIAFNode": "it returns an activation of the membrane, not spikes",
    "CTIzhNode": "it is a single neuron of a brain simulation and branches on its one membrane value",
    "adth": "it has no forward pass: nothing is integrated and its spike is always the number 0",
    "HHNode": "it needs a fixed neuron_num and returns (spikes, membrane), the spikes with no gradient",
    "aEIF": "it needs a fixed neuron_num and returns (spikes, membrane), the spikes with no gradient",
    "OnlineLIFNode": "it returns twice the batch, its spikes and its rate trace in one",
    "SNode": "its spikes carry no gradient (floor): it is for networks converted after training",
}
# BrainCog's surrogates: alpha learns in the first two, is a constant in the next three, is not read in the last two.
_ALPHA_LEARNS = ("AtanGrad", "ReLUGrad")
_ALPHA_READ = (*_ALPHA_LEARNS, "GateGrad", "QGateGrad", "SigmoidGrad")
ACT_FUNS = (*_ALPHA_READ, "BackEIGateGrad", "RoundGrad")
_HINTS = {
    "step": int,
    "channel": int | None,
    "cfg_backei": int,
    "alpha": float | None,
    "surrogate": str | None,
}
_HINTS |= {"act_fun": Literal[ACT_FUNS], "th_fun": Literal[(*ACT_FUNS, "EIGrad")]}
# Defaults of what BrainCog reads from **kwargs, where it states none, and of the arguments added here.
_DEFAULTS = {"mem_detach": False, "channel": None, "alpha": None, "surrogate": None}
_DEFAULTS |= {"a": 0.02, "b": 0.2, "c": -55.0, "d": -2.0, "log_alpha": math.log(2), "log_beta": math.log(6)}


def neuron_names() -> list[str]:
    """List `braincog.<ClassName>` for every neuron class; empty when BrainCog is not installed."""
    return [PREFIX + name for name in neuron_modules()]


def neuron_class(name: str) -> type[nn.Module]:
    """Import BrainCog's class of that name (without `braincog.`). Raises UserError when it has none."""
    if name not in neuron_modules():
        known = ", ".join(neuron_modules()) or "none, for it is not installed"
        raise UserError(f"BrainCog has no neuron {name!r}; it has: {known}")
    return getattr(import_braincog(neuron_modules()[name]), name)


def refusal(name: str) -> str | None:
    """Say why the neuron class `name` can't be a layer; None when it can."""
    if name in NODES:
        return None
    return REFUSED.get(name, f"this project does not know it yet (it knows those of BrainCog {VERSION})")


def signature(name: str) -> inspect.Signature:
    """The arguments of `braincog.<name>`: what BrainCog's class reads, with its defaults, then `alpha`, `surrogate`."""
    found = {}
    for base in reversed(neuron_class(name).__mro__):
        found |= inspect.signature(base.__init__).parameters if "__init__" in vars(base) else {}
    defaults = {key: parameter.default for key, parameter in found.items()} | _DEFAULTS
    parameters = []
    for key in (*NODES[name].reads.split(), "alpha", "surrogate"):
        default = getattr(defaults[key], "__name__", defaults[key])
        hint = _HINTS.get(key, bool if isinstance(default, bool) else float)
        default = float(default) if hint is float else default  # some of BrainCog's are int or NumPy's
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(key, kind, default=default, annotation=hint))
    return inspect.Signature(parameters)


class BrainCogNode(nn.Module):
    """BrainCog's neuron class `name` over time: `[T, ...]` currents -> `[T, ...]` spikes of the same dtype.

    Each call starts at rest. The membrane potential is float32 or wider. BrainCog's spikes are float32, so the
    gradients through them have float32's precision, in float64 too. Noisy neurons draw their noise in training and
    use its mean in evaluation.

    Args:
        name: the class, without `braincog.`.
        args: arguments with BrainCog's names, see `signature(name)`. `act_fun` is one of BrainCog's surrogates, to
            which most neurons give alpha 2, whatever its default; `alpha` overrides that. `surrogate` replaces it by
            one of this project's.

    Raises:
        UserError: the class can't be a layer, for the reason given; an argument is unknown or can't work.
    """

    def __init__(self, name: str, **args: Any) -> None:
        super().__init__()
        self.name = name
        if refusal(name):
            raise UserError(f"{PREFIX}{name} can't be a layer: {refusal(name)}")
        known = signature(name)
        try:
            bound = known.bind(**args)
        except TypeError as error:
            raise UserError(f"{PREFIX}{name}: {error}; it has: {', '.join(known.parameters)}") from None
        bound.apply_defaults()
        if mistake := self._mistake(known.parameters["act_fun"].default, **bound.arguments):
            raise UserError(f"{PREFIX}{name} {mistake}")
        self.neuron = self._build(**bound.arguments)

    def _mistake(self, usual: str, *, alpha: float | None, surrogate: Any, act_fun: str, **args: Any) -> str | None:
        lowest = 1 if "PLIF" in self.name else 0
        if args.get("tau", 2) <= lowest and self.name != "LIFSTDPNode":
            return f"needs tau over {lowest}, not {args['tau']}"
        if args.get("channel", 1) is None and (args["if_back"] or args["if_ei"]):
            return "holds convolutions over its input's channels: write channel=<their number>"
        if surrogate is not None and (alpha is not None or act_fun != usual):
            return "has surrogate in place of act_fun and alpha: give the one or the others"
        if alpha is not None and alpha <= 0:
            return f"needs alpha over 0, not {alpha}"
        if alpha is not None and act_fun not in _ALPHA_READ:
            return f"reads no alpha with {act_fun}; surrogates that do: {', '.join(_ALPHA_READ)}"
        return None

    def _build(self, *, alpha: float | None, surrogate: Any, act_fun: str, **args: Any) -> nn.Module:
        functions = import_braincog("base.strategy.surrogate")
        args["act_fun"] = getattr(functions, act_fun)  # as a class: BrainCog evaluates a string
        if "th_fun" in args:
            args |= {"th_fun": getattr(functions, args["th_fun"]), "channel": args["channel"] or 1}
        try:
            neuron = neuron_class(self.name)(**args)
        except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
            reason = str(error).split("\n", 1)[0]
            raise UserError(f"{PREFIX}{self.name} refuses its arguments: {reason}") from error
        if surrogate is not None:
            del neuron.act_fun  # it is a submodule, the function that replaces it is not
            neuron.act_fun = create("surrogate", surrogate).spike
        elif act_fun not in _ALPHA_LEARNS:
            neuron.act_fun.requires_grad_(False)  # BrainCog's PLIF neurons ask for a gradient all the same
        if alpha is not None:
            neuron.act_fun.alpha.data.fill_(alpha)
        return neuron

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        neuron = copy.copy(self.neuron)  # shares the parameters; the state of this call dies with it
        if not self.training and hasattr(neuron, "log_alpha"):
            neuron.integral = functools.partial(_mean_noise, neuron)
        neuron.n_reset()
        spikes = []
        with torch.autocast(x.device.type, enabled=False):
            for current in x.to(dtype):
                spikes.append(neuron(current))
                neuron.spike = neuron.spike.to(dtype)  # a neuron that feeds its spikes back needs one dtype
        return torch.stack(spikes).to(x.dtype)

    def extra_repr(self) -> str:
        return self.name


def _mean_noise(neuron: nn.Module, x: Tensor) -> None:
    """Update a noisy neuron's membrane with the mean of its beta noise in place of a draw."""
    alpha, beta = neuron.log_alpha.exp(), neuron.log_beta.exp()
    drift = (x - neuron.mem) * neuron.w.sigmoid() if hasattr(neuron, "w") else (x - neuron.mem) / neuron.tau
    neuron.mem = neuron.mem + (drift + alpha / (alpha + beta) * neuron.get_thres()) * neuron.dt


def _builder(name: str) -> Callable[..., BrainCogNode]:
    """The function that the registry calls for `braincog.<ClassName>`: BrainCogNode with the class's signature."""
    short = name.removeprefix(PREFIX)

    def build(**args: Any) -> BrainCogNode:
        return BrainCogNode(short, **args)

    build.__name__ = build.__qualname__ = name
    if refusal(short):
        build.__doc__ = f"Can't be a layer: {refusal(short)}."
        return build
    build.__doc__ = f"{NODES[short].formula} (BrainCog's {short})."
    build.__signature__ = signature(short)
    build.__annotations__ = {p.name: p.annotation for p in build.__signature__.parameters.values()}
    return build


register.family("node", PREFIX, neuron_names, _builder, source=f"BrainCog {VERSION}")
