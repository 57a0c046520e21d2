"""The base classes of neurons, and how a model builds the node of a place.

    node = build_node("lif(tau=2.0)", step=4)
    node(torch.full((4, 1), 1.5)).flatten()                          # 0, 1, 0, 1
    node.potential(torch.full((4, 1), 1.5), before_reset=True)       # 0.75, 1.125, 0.75, 1.125

A new neuron derives from `IntegrateAndFire` where it charges, fires and resets step by step, else from `Node`.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from registry import Spec, create, entry, names, nearest, parse
from st_utils.errors import UserError
from st_utils.kernels.node import definition
from st_utils.kernels.node.form import Form
from st_utils.kernels.node.op import backend_for, integrate_and_fire

HALF = (torch.float16, torch.bfloat16)
MISSPELT = 0.8  # difflib's similarity from which a name is a slip: treshold has 0.94, decay beside decay_input 0.63
Backend = Literal["auto", "torch", "cpu", "triton"]


class Node(nn.Module):
    """A layer of neurons: `[T, ...]` input currents -> `[T, ...]` spikes of the same dtype.

    Each call starts at rest; nothing is kept between calls. In half precision and under autocast the membrane potential
    is float32. `unit` is the value of one spike in the output.
    """

    unit: float = 1.0

    def forward(self, x: Tensor) -> Tensor:
        with no_autocast(x.device.type):
            return self.fire(in_full(x)).to(x.dtype) if x.dtype in HALF else self.fire(x)

    def fire(self, x: Tensor) -> Tensor:
        """Spikes of float32 or float64 input currents, `[T, ...]` -> `[T, ...]`."""
        raise NotImplementedError


def in_full(x: Tensor) -> Tensor:
    """x in the membrane's precision: half precision as float32, any other dtype unchanged."""
    return x.float() if x.dtype in HALF else x


def no_autocast(device: str) -> contextlib.AbstractContextManager:
    """A context without autocast; it does nothing for a device type that has no autocast, where torch would raise."""
    known = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if known else contextlib.nullcontext()


def check_steps(node: str, step: int, x: Tensor) -> None:
    """Raises UserError where the T of x `[T, ...]` is not the `step` that the neuron's parameters were made for."""
    if len(x) != step:
        raise UserError(f"{node} was built for step={step} and got {len(x)} time steps: build it with step={len(x)}")


class IntegrateAndFire(Node):
    """Neurons that charge, fire and reset; the equations stand in `st_utils/kernels/node/definition.py`.

        h_t = charge(v_{t-1}, x_t),   s_t = step(h_t - threshold),   v_t = reset(h_t, s_t)

    A subclass replaces `charge` or `reset`, or all of it by `run` or `fire`, and then runs in plain torch, unless it
    also says by `charge_form` which `Form.charge` of the kernels it computes.

    Args:
        threshold: membrane potential that fires.
        v_reset: hard reset to this value, v = (1 - s) h + s v_reset; None is the soft reset, v = h - s threshold.
        detach_reset: the s of the reset carries no gradient.
        surrogate: spec of the surrogate gradient.
        backend: `auto` is the kernel of the input's device, `torch` the definition.
        detach_membrane: no gradient flows from a step to the one before (BrainCog's mem_detach).
    """

    charge_form: str | None = None

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Forget the inherited `charge_form` where a subclass changes the arithmetic: a kernel would ignore it."""
        super().__init_subclass__(**kwargs)
        if {"charge", "reset", "fire", "run"} & vars(cls).keys() and "charge_form" not in vars(cls):
            cls.charge_form = None

    def __init__(
        self,
        threshold: float,
        v_reset: float | None,
        detach_reset: bool,
        surrogate: str,
        backend: Backend,
        detach_membrane: bool = False,
    ):
        super().__init__()
        self.threshold, self.v_reset, self.backend = threshold, v_reset, backend
        self.detach_reset, self.detach_membrane = detach_reset, detach_membrane
        self.surrogate = create("surrogate", surrogate)

    def forward(self, x: Tensor) -> Tensor:
        form = self.form()
        if backend := backend_for(x, form, self.backend):
            return integrate_and_fire(x, self.decay(), form, backend)
        return super().forward(x)

    def form(self) -> Form | None:
        """This neuron for the kernels; None where they do not know its charge or its surrogate."""
        surrogate = self.surrogate
        if self.charge_form is None or surrogate.kernel is None:
            return None
        alpha, beta = surrogate.kernel_numbers()
        return Form(
            charge=self.charge_form,
            threshold=float(self.threshold),
            v_reset=self.v_reset,
            detach=self.detach_form,
            surrogate=surrogate.kernel,
            alpha=float(alpha),
            beta=float(beta),
            strict=surrogate.strict,
        )

    @property
    def detach_form(self) -> definition.Detach:
        """The `Form.detach` that this neuron's two settings are."""
        return "membrane" if self.detach_membrane else "reset" if self.detach_reset else "nothing"

    def decay(self) -> Tensor | float:
        """1 / tau; where it is learned, a tensor without axes."""
        return 0.0

    def charge(self, v: Tensor | float, x: Tensor) -> Tensor:
        """The membrane potential h before firing, from the v of the step before and the input current."""
        raise NotImplementedError

    def reset(self, h: Tensor, s: Tensor) -> Tensor:
        """The membrane potential v after firing."""
        return definition.reset(h, s, self.threshold, self.v_reset)

    def fire(self, x: Tensor) -> Tensor:
        return torch.stack([s for s, _, _ in self.run(x)])

    def potential(self, x: Tensor, before_reset: bool = False) -> Tensor:
        """The membrane potential `[T, ...]`: v after each step's reset, or with `before_reset` the h that fires.

        float32 for half-precision currents and under autocast, as in `forward`: rounded to x's dtype, h could be on
        the other side of the threshold. So every backend's spikes are exactly step(h - threshold).
        """
        with no_autocast(x.device.type):
            return torch.stack([h if before_reset else v for _, h, v in self.run(in_full(x))])

    def run(self, x: Tensor) -> Iterator[definition.Step]:
        """Each time step's spikes s, and its membrane potential before firing, h, and after the reset, v."""
        return definition.over_time(
            x,
            rest=self.v_reset or 0.0,
            charge=self.charge,
            fire=lambda h: self.surrogate.spike(h - self.threshold),
            reset=self.reset,
            detach=self.detach_form,
        )

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, v_reset={self.v_reset}, surrogate={self.surrogate.spec}"


class StepByStep:
    """A node that takes one time step per call, where a step's input depends on the spikes before it.

    Call it with `[...]`, T = `steps` times; each call returns that step's spikes. Nodes take whole sequences, so each
    call runs the node on all steps so far: T (T + 1) / 2 steps in all, exact for any causal neuron, gradients included.
    A node that was built for T steps (`psn`) sees zeros in those to come. Only the last call runs the node's hooks, as
    it has every step.
    """

    def __init__(self, node: nn.Module, steps: int):
        self.node, self.steps, self.past = node, steps, []

    def __call__(self, x: Tensor) -> Tensor:
        self.past.append(x)
        now = len(self.past)
        to_come = [torch.zeros_like(x)] * (self.steps - now) if hasattr(self.node, "step") else []
        run = self.node if now == self.steps else self.node.forward
        return run(torch.stack(self.past + to_come))[now - 1]


def build_node(node: str | Spec, step: int, channel: int | None = None, **settings: float) -> nn.Module:
    """Build the node of a place in a model, whose input is `[T, B, channel, ...]`; `settings` as in `adapt_node`.

    build_node("lif", step=4, threshold=0.5)      # threshold 0.5
    build_node("ilif", step=4, threshold=0.5)     # ilif has no threshold: its own settings stand
    build_node("lif", step=4, treshold=0.5)       # TypeError: no node has a setting 'treshold'; ...
    """
    spec = adapt_node(node, **settings)
    return create("node", spec, step=step, **({"channel": channel} if channel else {}))


def adapt_node(node: str | Spec, **settings: float) -> Spec:
    """The node's spec with a place's own settings, such as a threshold, those that this node has.

    Raises TypeError for a setting that no registered node has, or that misspells one of this node's.
    """
    spec = parse(node)
    own = entry("node", spec).params
    for name in settings.keys() - own.keys():
        if difflib.get_close_matches(name, own, n=1, cutoff=MISSPELT) or not _any_node_has(name):
            raise TypeError(f"no node has a setting {name!r}{nearest(name, own)}; {spec.name} has: {', '.join(own)}")
    return spec.replace(**{name: value for name, value in settings.items() if name in own})


def _any_node_has(setting: str) -> bool:
    """Whether a registered node has this setting. BrainCog's own are not asked: that takes an import of seconds."""
    return any(setting in entry("node", name).params for name in names("node", families=False))
