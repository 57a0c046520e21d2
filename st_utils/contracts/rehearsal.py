"""What the parts of a model must return, seen on a copy of it before the first step."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

import registry
from registry import Entry, PluginError
from registry.failures import running
from st_utils.contracts.built import broken, what_is
from st_utils.data.seeding import reseed, seeded

logger = logging.getLogger("zoo")
AXES = ("T", "B", "D", "H'", "W'")
SAME_SHAPE = ("attention", "mlp", "node")


def rehearse(model: nn.Module, inputs: Callable[[], Tensor], num_classes: int, per_step: bool = False) -> None:
    """Run a copy of a model with parts of plug-ins on a few inputs, and look at what these parts return.

    Args:
        model: on its device. Nothing in it changes, nor do random numbers. One of own parts alone is not run.
        inputs: gives images `[B, C, H, W]` or frames `[B, T, C, H, W]`; called only where there is such a part.
        num_classes: of the data.
        per_step: the logits are asked for at each time step, `[T, B, num_classes]`.

    Raises:
        PluginError: a part breaks the contract of its kind, in one line that names it. What a part raises of its own
            comes through, marked as that part's.
    """
    outside = dict(_outside(model))
    if not outside:
        return
    x = inputs().to(next(model.parameters()).device)
    try:
        twin = copy.deepcopy(model)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        logger.warning("the plug-in's parts are not checked: copy.deepcopy can't copy the model (%s)", reason)
        return
    with seeded((0,)), torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        rehearsal = Rehearsal(model, twin, outside, num_classes, x)
        with torch.no_grad():
            for _ in range(2):
                reseed((0,), torch.manual_seed if x.is_cuda else torch.default_generator.manual_seed)
                rehearsal.run(twin.eval())
        rehearsal.run(twin.train(), **({"per_step": True} if per_step else {}))


def _outside(model: nn.Module) -> Iterator[tuple[str, Entry]]:
    """The parts of plug-ins in a model, by the names of its modules; the model itself is ''."""
    for name, module in model.named_modules():
        kind, spec = getattr(module, "part_kind", None), getattr(module, "spec", None)
        if kind in registry.KINDS and isinstance(spec, str):
            entry = registry.entry(kind, spec)
            if registry.from_outside(entry):
                yield name, entry


class Rehearsal:
    """One copy of a model with hooks on its parts from outside, and what these were given and returned."""

    def __init__(self, model: nn.Module, twin: nn.Module, outside: dict[str, Entry], num_classes: int, x: Tensor):
        self.twin, self.x, self.num_classes = twin, x, num_classes
        known = registry.parse(model.full_spec).args if hasattr(model, "full_spec") else {}
        self.step = known.get("step")
        self.stack: list[tuple[Entry, int]] = []  # the parts that run now, outermost first, and their inputs' versions
        self.last = ""  # what returned last
        self.seen: dict[str, tuple[Tensor, Tensor]] = {}  # the first input and output in evaluation, by module
        self.per_step = False
        for name, entry in outside.items():
            module = twin.get_submodule(name)
            module.register_forward_pre_hook(lambda m, args, entry=entry: self.enter(entry, args))
            module.register_forward_hook(lambda m, args, y, name=name, entry=entry: self.leave(name, entry, m, args, y))

    def run(self, twin: nn.Module, **asked: Any) -> None:
        """One pass; with gradients, backward too. Raises PluginError."""
        self.stack.clear()
        self.last, self.per_step = "", bool(asked)
        try:
            logits = twin(self.x, **asked)
            if torch.is_grad_enabled() and isinstance(logits, Tensor) and logits.requires_grad:
                self.stack.clear()
                learned = [p for p in twin.parameters() if p.requires_grad]
                torch.autograd.grad(logits.float().mean(), learned, allow_unused=True)
        except PluginError:
            raise
        except Exception as error:
            self.explain(error)
            raise

    def explain(self, error: Exception) -> None:
        """Raise PluginError for an exception that nothing in its traceback gives to a part; else mark it."""
        if self.stack:
            with running(self.stack[-1][0]):
                raise error
        if registry.plugin_failure(error) is None and self.last and type(error).__module__ == "builtins":
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise PluginError(f"{self.last}, and the model then fails: {reason}") from error

    def enter(self, entry: Entry, args: tuple) -> None:
        self.stack.append((entry, _version(args)))

    def leave(self, name: str, entry: Entry, module: nn.Module, args: tuple, y: Any) -> None:
        version = self.stack.pop()[1]
        if not args or not isinstance(args[0], Tensor):
            return
        x = args[0]
        if what := self.wrong(entry, module, x, y):
            raise broken(entry, what)
        if entry.kind not in ("model", "encoder") and version != _version(args):
            raise broken(entry, "changes its input in place, which the shortcut beside it still needs")
        if not module.training:
            before = self.seen.setdefault(name, (x.clone(), y.clone()))
            if torch.equal(before[0], x) and not torch.allclose(before[1], y, rtol=1e-2, atol=1e-2, equal_nan=True):
                raise broken(entry, "returns something else when it is called again: keep no state between calls")
        self.last = f"{entry.kind} {entry.name!r} returned {_described(y)}"

    def wrong(self, entry: Entry, module: nn.Module, x: Tensor, y: Any) -> str | None:
        """What is wrong with a part's output, after its name; None when nothing is."""
        if not isinstance(y, Tensor):
            return f"returns {what_is(y)}, not a tensor"
        wanted = self.shape(entry, module, x)
        if len(wanted) != y.dim() or any(w is not None and w != n for w, n in zip(wanted, y.shape, strict=True)):
            shown = ", ".join(letter if n is None else str(n) for n, letter in zip(wanted, AXES, strict=False))
            return f"returns {list(y.shape)} for {list(x.shape)}, not [{shown}]"
        if y.dtype != x.dtype:
            return f"returns {y.dtype} for {x.dtype}"
        if y.device != x.device:
            return f"returns a tensor on {y.device} for one on {x.device}"
        if entry.kind == "node" and x.requires_grad and not y.requires_grad:
            return "returns values without a gradient: spike by a surrogate, create('surrogate', name).spike(v - 1)"
        return None

    def shape(self, entry: Entry, module: nn.Module, x: Tensor) -> list[int | None]:
        """The shape that a part's output must have; None for an axis of any length."""
        if entry.kind in SAME_SHAPE:
            return list(x.shape)
        if entry.kind == "encoder":
            return [x.shape[1], x.shape[0], *x.shape[2:]] if x.dim() == 5 else [self.step, *x.shape]
        if entry.kind == "embedding":
            dim = registry.parse(module.full_spec).args.get("embed_dim")
            return [*x.shape[:2], dim if isinstance(dim, int) else None, None, None]
        steps = [x.shape[1] if x.dim() == 5 else self.step] if self.per_step else []
        return [*steps, x.shape[0], self.num_classes]


def _version(args: tuple) -> int:
    return sum(a._version for a in args if isinstance(a, Tensor))


def _described(x: Tensor) -> str:
    return f"{list(x.shape)} of {x.dtype}"
