"""What every neuron keeps, and the time loop that defines the neurons here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from registry import Spec, create, entry, parse
from st_utils.errors import UserError
from st_utils.kernels.node.form import Form
from st_utils.kernels.node.op import backend_for, integrate_and_fire

HALF = (torch.float16, torch.bfloat16)
Backend = Literal["auto", "torch", "cpu", "triton"]


class Node(nn.Module):
    """A neuron layer: `[T, ...]` input currents -> `[T, ...]` spikes of the same dtype.

    It starts each call at rest and keeps nothing between calls. Under half precision, and under autocast, the
    membrane potential is float32. `unit` is the value that one spike has in its output.
    """

    unit: float = 1.0

    def forward(self, x: Tensor) -> Tensor:
        with no_autocast(x.device.type):
            return self.fire(in_full(x)).to(x.dtype) if x.dtype in HALF else self.fire(x)

    def fire(self, x: Tensor) -> Tensor:
        """Spikes of float32 or float64 input currents, `[T, ...]` -> `[T, ...]`."""
        raise NotImplementedError


def in_full(x: Tensor) -> Tensor:
    """The currents in the membrane's precision: half precision as float32, anything else as it is."""
    return x.float() if x.dtype in HALF else x


def no_autocast(device: str) -> contextlib.AbstractContextManager:
    """Operations in their inputs' own precision, on a kind of device that knows autocast and on one that doesn't."""
    known = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if known else contextlib.nullcontext()


def check_steps(node: str, step: int, x: Tensor) -> None:
    """Raises UserError where an input `[T, ...]` has not the steps that the neuron's parameters are for."""
    if len(x) != step:
        raise UserError(f"{node} was built for step={step} and got {len(x)} time steps: build it with step={len(x)}")


class IntegrateAndFire(Node):
    """The neurons that charge, fire and reset: h = charge(v, x), s = step(h - threshold), v = reset(h, s).

    Hard reset: v = (1 - s) h + s v_reset. Soft reset (`v_reset=none`): v = h - s threshold. With
    `detach_reset` the s of the reset carries no gradient; with `detach_membrane` no v does, so that none goes back
    from step to step (BrainCog's mem_detach). This loop in plain torch, `fire`, is the definition that every other
    backend is compared with. `charge_form` is the `Form.charge` that a class computes, if any: a class that changes
    the arithmetic and names none runs in plain torch.
    """

    charge_form: str | None = None

    def __init_subclass__(cls, **kwargs: object) -> None:
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
        """This neuron for the kernels; None where it has no closed form that they know."""
        s = self.surrogate
        if self.charge_form is None or s.kernel is None:
            return None
        alpha, beta = s.kernel_numbers()
        detach = "membrane" if self.detach_membrane else "reset" if self.detach_reset else "nothing"
        settings = float(self.threshold), self.v_reset, detach
        return Form(self.charge_form, *settings, s.kernel, float(alpha), s.strict, float(beta))

    def decay(self) -> Tensor | float:
        """What of the membrane's way to rest a step takes; a tensor without axes where it is learned."""
        return 0.0

    def charge(self, v: Tensor | float, x: Tensor) -> Tensor:
        """The membrane potential before firing, from the one after the last reset and the input current."""
        raise NotImplementedError

    def fire(self, x: Tensor) -> Tensor:
        return torch.stack([s for s, _, _ in self.run(x)])

    def potential(self, x: Tensor, before_reset: bool = False) -> Tensor:
        """The membrane potential v after each step's reset, or the h that it fires by, `[T, ...]` -> the same.

        It is the membrane whose spikes `forward` gives: float32 for currents in half precision and under autocast,
        and not rounded to x's dtype, which could put it on the other side of the threshold. So the spikes of every
        backend are the step of `potential(x, before_reset=True) - threshold` exactly.
        """
        with no_autocast(x.device.type):
            return torch.stack([h if before_reset else v for _, h, v in self.run(in_full(x))])

    def run(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Each step's spikes s, and the membrane potential before firing, h, and after the reset, v."""
        v: Tensor | float = self.v_reset or 0.0
        for current in x:
            h = self.charge(v, current)
            s = self.surrogate.spike(h - self.threshold)
            v = self.reset(h, s.detach() if self.detach_reset else s)
            v = v.detach() if self.detach_membrane else v
            yield s, h, v

    def reset(self, h: Tensor, s: Tensor) -> Tensor:
        if self.v_reset is None:
            return h - self.threshold * s
        return (1 - s) * h + s * self.v_reset if self.v_reset else (1 - s) * h

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, v_reset={self.v_reset}, surrogate={self.surrogate.spec}"


class StepByStep:
    """A node for one sequence that is given a step at a time, where its input depends on spikes before.

    Call it with `[...]` of one step after another, `steps` times. As nodes take whole sequences, what came is kept and
    run again with what comes now, at half of `steps` times the work: exact, gradients included, for any causal neuron.
    One that was built for so many steps (`psn`) sees zeros in those to come. Hooks of the node see the last run, which
    has every step.
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
    """Build a node for a place in a model where it sees `[T, B, channel, ...]`.

    `settings` (a threshold, say) are the place's own: they are set where the neuron has them.
    """
    spec = adapt_node(node, **settings)
    return create("node", spec, step=step, **({"channel": channel} if channel else {}))


def adapt_node(node: str | Spec, **settings: float) -> Spec:
    """The node's spec with those of the settings that the neuron has."""
    spec = parse(node)
    known = entry("node", spec).params
    return spec.replace(**{k: v for k, v in settings.items() if k in known})
