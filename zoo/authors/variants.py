"""Whether a model computes what the authors' code computes on the same weights.

No name or shape in a checkpoint shows an attention's scale, where an embedding pools, or a neuron's time constant.
So each published model lists the `Variant`s of the authors' code (CIFAR, events, ImageNet, ...) with the arguments that
the code of each fixes. An argument that a variant neither fixes nor leaves free has our model's default.

    from registry import full
    from zoo.authors.qkformer import PUBLISHED
    from zoo.authors.variants import Weights, closest_variant

    ours = full("model", "qkformer")
    found = closest_variant("qkformer", ours, PUBLISHED.variants(ours.args, Weights()))
    found.differences  # ["legacy_batch_leak=false, the authors' code has true"]
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from registry import Spec, parse, parts
from registry.spec import show
from st_utils.errors import UserError

# Arguments that every variant leaves free, and why.
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
class Variant:
    """One variant of the authors' code, such as its class for events.

    Args:
        fixed: our arguments that their code fixes, with their values.
        free: argument (a path such as "attention.scale") -> why it is free: their constructor or the weights set it.
        has, lacks: regular expressions. A checkpoint of this variant has a name that matches `has` and none that
            matches `lacks`; an empty one is not asked.
    """

    fixed: Mapping[str, Any] = field(default_factory=dict)
    free: Mapping[str, str] = field(default_factory=dict)
    has: str = ""
    lacks: str = ""


def learned_tau(*nodes: str | Spec) -> dict[str, str]:
    """`has` or `lacks` of a Variant with these neurons: a checkpoint names PLIF's learned time constants `w`."""
    return {"has" if any(parse(node).name == "plif" for node in nodes) else "lacks": r"\.w$"}


class Weights(dict[str, Any]):
    """An authors' checkpoint, name -> tensor, and what its names and constants tell of its variant."""

    def has(self, pattern: str) -> bool:
        """Whether a name matches anywhere."""
        return any(re.search(pattern, key) for key in self)

    def fit(self, variant: Variant) -> bool:
        """Whether the names are those of the variant; true for an empty checkpoint, which tells nothing."""
        if not self:
            return True
        has_its_names = not variant.has or self.has(variant.has)
        has_others = bool(variant.lacks) and self.has(variant.lacks)
        return has_its_names and not has_others

    def constant(self, pattern: str, otherwise: float) -> float:
        """The number that all entries of these names hold; `otherwise` where there is none. Raises UserError."""
        found = {float(value) for key, value in self.items() if re.fullmatch(pattern, key) and _is_number(value)}
        if len(found) > 1:
            raise UserError(f"these weights hold several values for {pattern}: {', '.join(map(str, sorted(found)))}")
        return found.pop() if found else otherwise


def _is_number(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex()


class Comparison(NamedTuple):
    """A model beside a variant: a line for each difference, and the model's spec with the variant's values."""

    differences: list[str]
    corrected: Spec


def closest_variant(name: str, ours: Spec, variants: Iterable[Variant]) -> Comparison:
    """Compare a model with the variant that it differs from least.

    Args:
        name: the published model's name.
        ours: the model's full spec.
        variants: at least one.

    Returns:
        The differences ("scale=0.25, the authors' code has 0.125") and the spec without them, in its short form.
    """
    found = []
    for variant in variants:
        kept = {key: value for key, value in ours.args.items() if key in (*FREE, *INITIAL, *variant.free)}
        known = parts.entry("model", name).params
        theirs = parts.full("model", Spec(name, {k: v for k, v in {**kept, **variant.fixed}.items() if k in known}))
        free = (FREE.keys() - variant.fixed.keys()) | variant.free.keys() | {*INITIAL}
        lines: list[str] = []
        found.append(Comparison(lines, _corrected(_plain(ours), _plain(theirs), free, "", lines)))
    nearest = min(found, key=lambda comparison: len(comparison.differences))
    return nearest._replace(corrected=parts.canonical("model", nearest.corrected))


def _plain(spec: Spec) -> Spec:
    """The spec without an `mlp_node` that equals `node`: leaving it out builds the same model."""
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
    """Whether an argument can differ without effect: a backend computes the same, PLIF's tau is among the weights."""
    return key == "backend" or (key == "tau" and part == "plif")


def _same(left: Any, right: Any) -> bool:
    """Whether two values are equal; numbers as float32, the precision of the authors' constants."""
    if any(
        value is None or isinstance(value, (bool, str, Spec, tuple)) or value is _MISSING for value in (left, right)
    ):
        return type(left) is type(right) and left == right
    return np.float32(left) == np.float32(right)


def _show(value: Any) -> str:
    return "none of its own" if value is _MISSING else show(value)
