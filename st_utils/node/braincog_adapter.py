"""BrainCog's neurons as nodes here, and this project's nodes in BrainCog's networks. All BrainCog imports are in this file.

`braincog.LIFNode(tau=2.0)` is BrainCog's own class, unchanged, run over the time axis; every neuron class that
BrainCog has is listed, and one that can't be a layer says why when it is built (`REFUSED`). The other way round,
`create_model("sew_resnet18", node_type=braincog_node("plif(tau=2.0)"), ...)` in BrainCog.

Importing BrainCog takes seconds, so nothing of it is imported before a neuron is asked for; listing reads its files.
Source: BrainCog, github.com/BrainCog-X/Brain-Cog, checked with 0.2.7.19.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import importlib.util
import inspect
import random
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from registry import create, entry, parse, register
from registry.spec import Spec
from st_utils.errors import UserError

PREFIX = "braincog."
_LOW_PRECISION = (torch.float16, torch.bfloat16)

# Arguments that BrainCog's constructors accept and their equations read. The rest (LIFNode's `dt`, IzhNode's `tau`, ...)
# is accepted and ignored there, so it is an unknown argument here. `v_reset` is where the membrane starts, as in
# BrainCog: after a spike it goes to 0 whatever `v_reset` is. `step` is stored and not read: T is the input's.
_FIRES = "step threshold act_fun requires_thres_grad"
_STARTS = f"{_FIRES} mem_detach v_reset"
NODES: dict[str, tuple[str, str]] = {
    "IFNode": ("v += x dt; hard reset to 0", f"{_STARTS} dt sigmoid_thres"),
    "LIFNode": ("v += (x - v) / tau; hard reset to 0", f"{_STARTS} tau"),
    "BurstLIFNode": ("LIFNode that fires counts: 0, 1, 3, 4.5, 6, 7.5", f"{_STARTS} tau"),
    "BackEINode": (
        "v = decay v + sigmoid(conv(spikes)) x, spikes signed by sign(conv(v)): -1, 0, 1; input [T, B, channel, H, W]",
        f"{_FIRES} mem_detach decay th_fun channel if_back if_ei cfg_backei",
    ),
    "NoiseLIFNode": (
        "v += ((x - v) / tau + beta noise) dt; the noise's mean in eval mode",
        f"{_STARTS} tau dt sigmoid_thres log_alpha log_beta",
    ),
    "BiasLIFNode": ("v += (x - v) / tau dt + 0.1", f"{_STARTS} tau dt sigmoid_thres"),
    "LIFSTDPNode": ("v = tau v + x: tau is the factor that is kept, 2 by default", f"{_STARTS} tau"),
    "PLIFNode": ("v += (x - v) sigmoid(w) dt, w learned from -ln(tau - 1)", f"{_STARTS} tau dt sigmoid_thres"),
    "NoisePLIFNode": (
        "PLIFNode with NoiseLIFNode's noise; the noise's mean in eval mode",
        f"{_STARTS} tau dt sigmoid_thres log_alpha log_beta",
    ),
    "BiasPLIFNode": ("v += ((x - v) sigmoid(w) + 0.1) dt, w learned", f"{_STARTS} tau dt sigmoid_thres"),
    "IzhNode": ("Izhikevich's neuron from 0 mV, in mV", f"{_FIRES} mem_detach sigmoid_thres dt a b c d"),
    "IzhNodeMU": ("Izhikevich's neuron from -70 mV, in mV", f"{_FIRES} mem_detach dt a b c d"),
    "SimHHNode": ("Hodgkin and Huxley's neuron, dt 0.01, in mV", _FIRES),
}
REFUSED: dict[str, str] = {
    "BaseNode": "it is the abstract base class; choose a neuron that derives from it",
    "BaseMCNode": "it is the abstract base class of the neurons with compartments",
    "ThreeCompNode": "it needs two input currents, basal and apical, where a layer has one",
    "ReLUNode": "it returns ReLU activations, not spikes",
    "BiasReLUNode": "it returns ReLU activations, not spikes",
    "DoubleSidePLIFNode": "BrainCog subtracts the membrane from a method (get_thres without brackets): it always fails",
    "DGLIFNode": "it returns the membrane where it is over the threshold, not spikes",
    "HTDGLIFNode": "it returns the membrane where it is over the threshold, not spikes",
    "LIAFNode": "it returns an activation of the membrane, not spikes",
    "CTIzhNode": "it is one neuron of a brain simulation: it branches on a single membrane value",
    "adth": "it has no forward pass (its integral and its spike are empty)",
    "HHNode": "it needs a fixed neuron_num, returns (spikes, membrane), and its spikes carry no gradient",
    "aEIF": "it needs a fixed neuron_num, returns (spikes, membrane), and its spikes carry no gradient",
    "OnlineLIFNode": "it returns twice the batch: the spikes and its rate trace, concatenated",
    "SNode": "its spikes carry no gradient (floor): it is for networks converted after training",
}
# BrainCog's surrogates by what becomes of alpha: it gets a gradient, it shapes the gradient, it is not read.
_ALPHA_LEARNS = ("AtanGrad", "ReLUGrad")
_ALPHA_READ = (*_ALPHA_LEARNS, "GateGrad", "QGateGrad", "SigmoidGrad")
ACT_FUNS = (*_ALPHA_READ, "BackEIGateGrad", "RoundGrad")
TH_FUNS = (*ACT_FUNS, "EIGrad")
# Defaults of what BrainCog reads from **kwargs, and of what is left to say here.
_DEFAULTS = {"mem_detach": False, "a": 0.02, "b": 0.2, "c": -55.0, "d": -2.0, "log_alpha": 0.6931471805599453}
_DEFAULTS |= {"log_beta": 1.791759469228055}
_HINTS = {"step": int, "channel": int | None, "cfg_backei": int, "act_fun": str, "th_fun": str}


# -- importing ---------------------------------------------------------------------------------------------
@contextlib.contextmanager
def _importing() -> Iterator[None]:
    """Stands in for the module `imp` (BrainCog imports dv, which needs it; Python 3.12 dropped it), for the import alone.

    Python's random state and the warnings' filters are as before afterwards: BrainCog's import touches both.
    """
    state, stand_in = random.getstate(), None
    if sys.version_info >= (3, 12) and importlib.util.find_spec("imp") is None:
        stand_in = sys.modules["imp"] = types.ModuleType("imp")
        stand_in.find_module = importlib.import_module  # dv asks whether numpy is there: ImportError says no
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(state)
        if stand_in is not None:
            sys.modules.pop("imp", None)


def import_braincog(path: str) -> types.ModuleType:
    """The module `braincog.<path>`. Raises UserError when BrainCog is not installed or does not import."""
    name = PREFIX + path
    if name in sys.modules:
        return sys.modules[name]
    try:
        with _importing():
            return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{name} can't be imported ({error}): pip install braincog==0.2.7.19") from error


@functools.cache
def _places() -> dict[str, str]:
    """Neuron classes -> modules, read from the installed files: classes named *Node and those derived from one."""
    found = importlib.util.find_spec("braincog")
    root = Path(next(iter(found.submodule_search_locations))) if found else None
    classes: dict[str, tuple[list[str], str]] = {}
    for part in ("base", "model_zoo") if root else ():
        for file in sorted((root / part).rglob("*.py")):
            module = ".".join(file.relative_to(root).with_suffix("").parts)
            for name, bases in re.findall(r"^class\s+(\w+)\s*\(([^)]*)\)", file.read_text(encoding="utf-8"), re.M):
                classes.setdefault(name, (re.findall(r"\w+", bases), module))

    def is_neuron(name: str) -> bool:
        return name.endswith("Node") or any(is_neuron(base) for base in classes.get(name, ((), ""))[0])

    return {name: module for name, (_, module) in sorted(classes.items()) if is_neuron(name)}


def neuron_names() -> list[str]:
    """`braincog.<ClassName>` for every neuron class of the installed BrainCog; empty when there is none."""
    return [PREFIX + name for name in _places()]


def neuron_class(name: str) -> type[nn.Module]:
    """BrainCog's class of that name (without `braincog.`). Raises UserError when it has none."""
    if name not in _places():
        raise UserError(f"BrainCog has no neuron {name!r}; it has: {', '.join(_places()) or 'nothing (not installed)'}")
    return getattr(import_braincog(_places()[name]), name)


# -- BrainCog's neurons here -------------------------------------------------------------------------------
def signature(name: str) -> inspect.Signature:
    """The arguments of `braincog.<name>`: those that BrainCog's class reads, with its defaults."""
    given = {}
    for base in reversed(neuron_class(name).__mro__):
        given |= inspect.signature(base.__init__).parameters if "__init__" in vars(base) else {}
    defaults = _DEFAULTS | {key: p.default for key, p in given.items() if key not in _DEFAULTS} | {"channel": None}
    parameters = []
    for key in NODES[name][1].split():
        default = defaults[key]
        hint = _HINTS.get(key, bool if isinstance(default, bool) else float)
        default = default.__name__ if isinstance(default, type) else float(default) if hint is float else default
        parameters.append(inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint))
    for key, hint in (("alpha", float | None), ("surrogate", str | Spec | None)):
        parameters.append(inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint))
    return inspect.Signature(parameters)


class BrainCogNode(nn.Module):
    """BrainCog's neuron class `name` over time: [T, ...] -> spikes [T, ...] of the same dtype, from rest at each call.

    Arguments have BrainCog's names (`signature(name)` lists them). `act_fun` is one of BrainCog's surrogates by name;
    most neurons give it alpha 2 whatever its own default, and `alpha` overrides that. `surrogate` puts one of this
    project's in its place. The membrane is float32 for half-precision inputs. An alpha that BrainCog's surrogate gives
    no gradient does not ask for one. Noise is drawn while training; in eval mode its mean stands in, so that
    evaluation is deterministic. BrainCog's spikes are float32: in float64 so are the gradients through them.

    Raises UserError for a class that can't be a layer, with the reason, and for arguments that can't work.
    """

    def __init__(self, name: str, **args: Any) -> None:
        super().__init__()
        self.name = name
        if name in REFUSED:
            raise UserError(f"{PREFIX}{name} can't be a layer: {REFUSED[name]}")
        try:
            bound = signature(name).bind(**args)
        except TypeError as error:
            raise UserError(f"{PREFIX}{name}: {error}; it has: {', '.join(signature(name).parameters)}") from None
        bound.apply_defaults()
        self.neuron = self._build(dict(bound.arguments))

    def _build(self, args: dict[str, Any]) -> nn.Module:
        alpha, surrogate, act_fun = args.pop("alpha"), args.pop("surrogate"), args["act_fun"]
        self._check(args, alpha, surrogate)
        functions = import_braincog("base.strategy.surrogate")
        for key in ("act_fun", "th_fun"):
            if key in args:  # as a class: BrainCog evaluates a string
                args[key] = getattr(functions, args[key])
        if "channel" in args and args["channel"] is None:
            args["channel"] = 1
        try:
            neuron = neuron_class(self.name)(**args)
        except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
            raise UserError(f"{PREFIX}{self.name} refuses its arguments: {error}") from error
        if surrogate is not None:
            neuron.act_fun = create("surrogate", surrogate)
        elif alpha is not None:
            neuron.act_fun.alpha.data.fill_(alpha)
        if surrogate is None and act_fun not in _ALPHA_LEARNS:
            neuron.act_fun.requires_grad_(False)
        return neuron

    def _check(self, args: dict[str, Any], alpha: float | None, surrogate: Any) -> None:
        where, act_fun = PREFIX + self.name, args["act_fun"]
        for key, choices in (("act_fun", ACT_FUNS), ("th_fun", TH_FUNS)):
            if args.get(key, choices[0]) not in choices:
                raise UserError(f"{where} has no {key} {args[key]!r}; choices: {', '.join(choices)}")
        if surrogate is not None and (alpha is not None or act_fun != signature(self.name).parameters["act_fun"].default):
            raise UserError(f"{where}: surrogate stands in place of act_fun and alpha: give the one or the others")
        if alpha is not None and act_fun not in _ALPHA_READ:
            raise UserError(f"{where}: {act_fun} does not read alpha; those that do: {', '.join(_ALPHA_READ)}")
        if args.get("tau", 1) <= (1 if "PLIF" in self.name else 0) and self.name != "LIFSTDPNode":
            raise UserError(f"{where} needs tau over {1 if 'PLIF' in self.name else 0}, not {args['tau']}")
        if args.get("channel", 1) is None and (args["if_back"] or args["if_ei"]):
            raise UserError(f"{where} holds convolutions over its input's channels: write channel=<their number>")

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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BrainCogNode:
        # `.half()` moves the tensors but leaves their precision: the membrane they act on is float32
        def keep(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype in _LOW_PRECISION else moved

        return super()._apply(keep, recurse)

    def extra_repr(self) -> str:
        return self.name


def _mean_noise(neuron: nn.Module, x: Tensor) -> None:
    """The noisy neurons' membrane update with the beta noise's mean in place of a draw."""
    alpha, beta = neuron.log_alpha.exp(), neuron.log_beta.exp()
    drift = (x - neuron.mem) * neuron.w.sigmoid() if hasattr(neuron, "w") else (x - neuron.mem) / neuron.tau
    neuron.mem = neuron.mem + (drift + alpha / (alpha + beta) * neuron.get_thres()) * neuron.dt


def _builder(name: str) -> Callable[..., BrainCogNode]:
    """What the registry builds `braincog.<ClassName>` with."""
    short = name.removeprefix(PREFIX)

    def build(**args: Any) -> BrainCogNode:
        return BrainCogNode(short, **args)

    build.__name__ = build.__qualname__ = name
    if short in REFUSED:
        build.__doc__ = f"Can't be a layer: {REFUSED[short]}."
        return build
    build.__doc__ = f"{NODES[short][0]} (BrainCog's {short})."
    build.__signature__ = signature(short)
    build.__annotations__ = {p.name: p.annotation for p in build.__signature__.parameters.values()}
    return build


register.family("node", PREFIX, neuron_names, _builder, source="BrainCog 0.2.7.19, braincog/base/node/node.py")


# -- our nodes in BrainCog's networks ----------------------------------------------------------------------
# Settings of BrainCog's own neurons that a network may hand on, with the value that asks for nothing.
_FOREIGN = {"act_fun": None, "v_reset": 0.0, "dt": 1.0, "mem_detach": False, "sigmoid_thres": False}
_FOREIGN |= {"requires_thres_grad": False, "requires_mem": False}


class _ZooNode:
    """The part of `braincog_node`'s classes that needs no BrainCog; they derive from BrainCog's BaseNode too."""

    node_spec: Spec

    def __init__(self, **settings: Any) -> None:
        for key, neutral in _FOREIGN.items():
            if settings.get(key, neutral) != neutral and key not in self.node_spec.args:
                raise UserError(f"braincog_node({str(self.node_spec)!r}) can't take {key} from the network: "
                                "say it in the spec (act_fun as surrogate=...)")  # fmt: skip
        shape = {key: settings[key] for key in ("step", "layer_by_layer", "n_groups", "requires_fp") if key in settings}
        super().__init__(**shape)
        del self.threshold  # BaseNode's parameter, which nothing would read
        taken = entry("node", self.node_spec).params
        offered = {key: settings[key] for key in ("step", "threshold", "tau") if key in settings and key in taken}
        self.neuron = create("node", self.node_spec, **offered)
        self.step_known = "step" in settings
        self.n_reset()

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, ...] for one step, or with layer_by_layer (n_groups) all steps as BrainCog flattens them -> the same shape.

        A node here takes a whole sequence. So what came since the last reset is kept and run again with what comes
        now: exact, with its gradients, at T^2 / 2 of the work one step at a time. layer_by_layer runs once.
        """
        whole = self.layer_by_layer or self.groups != 1
        now = self._split(inputs) if whole else inputs.unsqueeze(0)
        if self._past is None:
            self._past, self._fired, earlier = now, now.new_empty(0, *now.shape[1:]), 0
        else:
            earlier = len(self._past)
            if self._past.shape[1:] != now.shape[1:]:
                raise UserError("the input's shape changed in mid-sequence: call reset() between two batches")
            self._past = torch.cat((self._past, now))
        spikes = self.neuron(self._past)
        if not torch.equal(spikes[:earlier], self._fired):
            raise UserError(f"node {str(self.node_spec)!r} can't run step by step: its spikes depend on later input or "
                            "on chance; build the network with layer_by_layer=True")  # fmt: skip
        self._fired = spikes.detach()
        if self.requires_fp:
            self.feature_map.extend(spikes[earlier:])
        self.spike = spikes[-1]
        return self.rearrange2op(spikes[earlier:]) if whole else self.spike

    def _split(self, inputs: Tensor) -> Tensor:
        if not self.step_known:  # BrainCog's own neurons would take 8 in silence
            raise UserError("this network does not tell its nodes the number of steps: pass braincog_node(spec, step=T)")
        return self.rearrange2node(inputs)

    def n_reset(self) -> None:
        super().n_reset()
        self._past = self._fired = None

    def calc_spike(self) -> None:
        """Nothing: forward asks the node."""

    def get_thres(self) -> Any:
        return getattr(self.neuron, "threshold", None)

    def _fixed(self, *_: Any) -> None:
        raise UserError(f"set it in the spec: braincog_node({str(self.node_spec)!r})")

    set_n_threshold = set_n_tau = _fixed

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_past": None, "_fired": None, "spike": 0.0, "feature_map": []}


@functools.cache
def braincog_node(spec: str | Spec, step: int | None = None) -> type[nn.Module]:
    """A class to give BrainCog's networks as their node: `SEWResNet(..., node_type=braincog_node("plif"))`.

    The network's step, threshold and tau fill what the spec leaves open; its other neuron settings must be neutral or
    stand in the spec (UserError). `step` is for networks that don't hand it on (resnet with layer_by_layer).
    Raises SpecError for an unknown node or argument.
    """
    node_spec = parse(spec)
    entry("node", node_spec)
    base = import_braincog("base.node.node").BaseNode

    class ZooNode(_ZooNode, base):
        def __init__(self, **settings: Any) -> None:
            super().__init__(**(settings if step is None else {**settings, "step": step}))

    ZooNode.node_spec = node_spec
    ZooNode.__qualname__ = f"braincog_node({str(node_spec)!r})"
    return ZooNode
