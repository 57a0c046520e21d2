"""Authors' checkpoints and constructor arguments -> models of this zoo.

A model class that was published has an attribute `published`, a `Published`: the authors' repositories, how
their parameter names become ours, which names their own code never uses, and how the arguments of their
constructor become a spec.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from registry import Spec, entry, names
from st_utils.errors import UserError
from st_utils.training.finite import refuse_not_finite

Rules = tuple[tuple[str, str], ...]

# What the authors' last name components are called here.
WORDS = {"linear": "conv", "bn": "norm"}


@dataclass(frozen=True)
class Published:
    """How an authors' implementation maps to a model here.

    Args:
        repositories: "owner/name" on GitHub, or "owner/name:file" where that repository has several models, or
            "owner/name:file:class" where that file has.
        rules: (pattern, replacement) pairs of regular expressions on whole parameter names; the first match
            counts, and a component `linear` or `bn` of its result becomes `conv` or `norm`.
        unused: patterns of names that the authors' forward never touches.
        spec: (file, constructor arguments, steps) -> the arguments of our spec. Among the constructor's arguments
            is `neuron`, settings of the neurons that the authors' code fixes, where they are known.
    """

    repositories: tuple[str, ...]
    rules: Rules
    unused: tuple[str, ...]
    spec: Callable[[str, Mapping[str, Any], int], dict[str, Any]]

    def rename(self, key: str) -> str | None:
        """Our name for the authors' `key`, "" where their code never uses it, None where it is unknown."""
        if any(re.fullmatch(pattern, key) for pattern in self.unused):
            return ""
        for pattern, replacement in self.rules:
            if match := re.fullmatch(pattern, key):
                return ".".join(WORDS.get(word, word) for word in match.expand(replacement).split("."))
        return None


def inside(places: Mapping[str, str], rules: Iterable[tuple[str, str]]) -> Rules:
    """The rules for names inside a module, at each place where the authors have such a module."""
    return tuple(
        (rf"{theirs}\.{pattern}", f"{ours}.{replacement}")
        for theirs, ours in places.items()
        for pattern, replacement in rules
    )


def square(height: int, width: int) -> int | tuple[int, int]:
    """An image size as a spec writes it: one number for a square."""
    return height if height == width else (height, width)


def load_published(model: nn.Module, state_dict: Mapping[str, Any]) -> nn.Module:
    """Load an authors' checkpoint into a model of this zoo, strictly, in place.

    Args:
        model: built by `create_model` in the form that the authors published (see `authors_spec`).
        state_dict: their names -> tensors. A checkpoint that holds it under "state_dict" or "model", and
            names that start with "module.", are understood.

    Raises:
        UserError: names what is unknown, missing, given twice, of another shape or not finite; the model is unchanged.
    """
    published = getattr(model, "published", None)
    if published is None:
        raise UserError(f"{type(model).__name__} has no published weights")
    for wrapper in ("state_dict", "model"):
        state_dict = state_dict[wrapper] if isinstance(state_dict.get(wrapper), Mapping) else state_dict
    target = model.state_dict()
    found: dict[str, Tensor] = {}
    problems = []
    for key, tensor in state_dict.items():
        name = published.rename(key.removeprefix("module."))
        if name == "":
            continue
        if name not in target:
            problems.append(f"{key} has no place here")
        elif name in found:
            problems.append(f"{key} is the second for {name}")
        elif not _same_shape(tensor, target[name]):
            problems.append(f"{key} is {list(tensor.shape)}, {name} is {list(target[name].shape)}")
        else:
            found[name] = tensor.reshape(target[name].shape)
    problems += [f"nothing for {name}" for name in target if name not in found]
    if problems:
        more = f" and {len(problems) - 6} more" if len(problems) > 6 else ""
        raise UserError(f"these weights are not of {model.spec}: {'; '.join(problems[:6])}{more}")
    refuse_not_finite(found, model)
    with torch.no_grad():
        for name, tensor in found.items():
            target[name].copy_(tensor)
    return model


def _same_shape(theirs: Tensor, ours: Tensor) -> bool:
    """Equal, or equal but for trailing ones (a linear layer's weight as a 1 x 1 convolution's)."""

    def core(shape: torch.Size) -> list[int]:
        sizes = list(shape)
        while len(sizes) > 2 and sizes[-1] == 1:
            sizes.pop()
        return sizes

    return core(theirs.shape) == core(ours.shape)


def authors_spec(
    repository: str,
    file: str,
    constructor: Mapping[str, Any],
    step: int,
    neuron: Mapping[str, Any] | None = None,
    class_name: str = "",
) -> Spec:
    """The spec of the model that an authors' class builds from these constructor arguments.

    Args:
        repository: "owner/name" of the authors' code.
        file: the file of the class there (some have one per data set).
        constructor: its keyword arguments.
        step: time steps, for classes that take them from the input.
        neuron: settings of its neurons that are not among those arguments, such as thresholds.
        class_name: of the class, where its file has several.

    Raises:
        UserError: no model here was published there, or the arguments ask for something that it has not.
    """
    found = {}
    for name in names("model", families=False):
        if published := getattr(entry("model", name).factory, "published", None):
            found |= dict.fromkeys(published.repositories, (name, published))
    for place in (f"{repository}:{file}:{class_name}", f"{repository}:{file}", repository):
        if place in found:
            name, published = found[place]
            return Spec(name, published.spec(file, {**constructor, "neuron": neuron or {}}, step))
    raise UserError(f"no model of this zoo was published in {repository}")
