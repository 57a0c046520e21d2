"""Whether a model computes what the authors' code computes on the same weights.

No name or shape in a checkpoint shows an attention's scale, where an embedding pools, or a neuron's time constant.
So each published model lists its `Form`s: what the authors' code fixes, whatever its constructor is told. What a form
neither fixes nor leaves free has the default of the model's class.

    closest("qkformer", parse(model.full_spec), forms)[0]  # ["legacy_batch_leak=false, the authors' code has true"]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from registry import Spec, parse, parts
from registry.spec import show
from st_utils.errors import UserError

# Arguments that every form leaves free, and why.
FREE = {
    "num_classes": "the head's shape tells",
    "in_channels": "the first convolution's shape tells",
    "embed_dim": "the weights' shapes tell",
    "depth": "the weights' names tell",
    "mlp_ratio": "the weights' shapes tell",
    "img_size": "the tokens come from the image that is given",
    "step": "the time steps are the constructor's or the input's",
    "num_heads": "an argument of the constructor: the weights do not tell",
}
# Arguments that say how weights start: loading replaces them.
INITIAL = ("head_init", "projection_init")


@dataclass(frozen=True)
class Form:
    """One form that the authors' code can have.

    Args:
        fixed: our arguments that their code fixes, as a spec has them.
        free: paths of arguments ("attention.scale") that their constructor takes or the weights tell -> why.
        has, lacks: patterns of names that their checkpoints in this form do and do not hold, where that tells.
    """

    fixed: Mapping[str, Any] = field(default_factory=dict)
    free: Mapping[str, str] = field(default_factory=dict)
    has: str = ""
    lacks: str = ""


def learned(*nodes: str | Spec) -> dict[str, str]:
    """What a checkpoint has or lacks that is for these neurons: PLIF's learned time constants are called w."""
    return {"has" if any(parse(node).name == "plif" for node in nodes) else "lacks": r"\.w$"}


class Weights(dict[str, Any]):
    """An authors' checkpoint: what its names and constants say of the form that it is for."""

    def has(self, pattern: str) -> bool:
        return any(re.search(pattern, key) for key in self)

    def fit(self, form: Form) -> bool:
        return not self or (not (form.has and not self.has(form.has)) and not (form.lacks and self.has(form.lacks)))

    def constant(self, pattern: str, otherwise: float) -> float:
        """The number that all entries of these names hold; `otherwise` where there is none. Raises UserError."""
        found = {float(value) for key, value in self.items() if re.fullmatch(pattern, key) and _is_number(value)}
        if len(found) > 1:
            raise UserError(f"these weights hold several values for {pattern}: {', '.join(map(str, sorted(found)))}")
        return found.pop() if found else otherwise


def _is_number(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex()


def closest(name: str, ours: Spec, forms: Iterable[Form]) -> tuple[list[str], Spec]:
    """What distinguishes a model from the form that is nearest to it.

    Args:
        name: of the model that was published.
        ours: the model's full spec.

    Returns:
        A line for each difference ("scale=0.25, the authors' code has 0.125"), and the spec without them.
    """
    found = []
    for form in forms:
        kept = {key: value for key, value in ours.args.items() if key in (*FREE, *INITIAL, *form.free)}
        known = parts.entry("model", name).params
        theirs = parts.full("model", Spec(name, {k: v for k, v in {**kept, **form.fixed}.items() if k in known}))
        free = (FREE.keys() - form.fixed.keys()) | form.free.keys() | {*INITIAL}
        lines: list[str] = []
        found.append((lines, _corrected(_plain(ours), _plain(theirs), free, "", lines)))
    lines, spec = min(found, key=lambda pair: len(pair[0]))
    return lines, parts.canonical("model", spec)


def _plain(spec: Spec) -> Spec:
    """Without an `mlp_node` that is the model's `node`: it says nothing."""
    args = spec.args
    return spec.replace(mlp_node=None) if "mlp_node" in args and args["mlp_node"] == args["node"] else spec


_MISSING = object()


def _corrected(ours: Spec, theirs: Spec, free: Iterable[str], place: str, lines: list[str]) -> Spec:
    """Our spec with their values where it differs; adds a line for each difference."""
    args = {}
    for key in {**theirs.args, **ours.args}:
        path = place + key
        left, right = ours.args.get(key, _MISSING), theirs.args.get(key, _MISSING)
        if path in free or _same(left, right) or _changes_nothing(key, ours.name):
            args[key] = left
        elif isinstance(left, Spec) and isinstance(right, Spec) and left.name == right.name:
            args[key] = _corrected(left, right, free, path + ".", lines)
        else:
            lines.append(f"{path}={_show(left)}, the authors' code has {_show(right)}")
            args[key] = right
    return Spec(ours.name, {key: value for key, value in args.items() if value is not _MISSING})


def _changes_nothing(key: str, part: str) -> bool:
    """A backend computes the same; a learned time constant is among the weights."""
    return key == "backend" or (key == "tau" and part == "plif")


def _same(left: Any, right: Any) -> bool:
    """Equal, numbers as float32: weights are no more exact."""
    if any(
        value is None or isinstance(value, (bool, str, Spec, tuple)) or value is _MISSING for value in (left, right)
    ):
        return type(left) is type(right) and left == right
    return np.float32(left) == np.float32(right)


def _show(value: Any) -> str:
    return "none of its own" if value is _MISSING else show(value)
