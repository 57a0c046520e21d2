"""Load an authors' checkpoint; turn the arguments of an authors' constructor into a spec.

    from zoo import authors_spec, create_model

    arguments = {"embed_dims": 384, "num_heads": 12, "mlp_ratios": 4, "depths": 2, "in_channels": 3, "num_classes": 10}
    spec = authors_spec("ZK-Zhou/spikformer", "cifar10/model.py", arguments, step=4)
    model = create_model(spec)
    model.spec  # 'spikformer(depth=2, img_size=128)'

`load_published(model, torch.load("checkpoint.pth.tar", weights_only=True))` then loads the authors' checkpoint. Each
published model class has an attribute `published`, a `Published`; zoo/authors/sdt.py has that of zoo/sdt.py.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from registry import Spec, entry, names, parse
from st_utils.errors import UserError
from st_utils.training.finite import refuse_not_finite
from zoo.authors.constructor import ConstructorArguments
from zoo.authors.variants import Comparison, Variant, Weights, closest_variant

Rules = tuple[tuple[str, str], ...]

# What the authors' last name components are called here.
WORDS = {"linear": "conv", "bn": "norm"}

# Other names of a repository, in lower case: the authors' own of a copy that was read, or one that it moved to.
MOVED = {
    "fancyssc/step": "fancyssc/spikingtransformerbenchmark",
    "intelligent-computing-lab-panda/statten": "marcocrisafulli5/statten",
    "intelligent-computing-lab-yale/statten": "marcocrisafulli5/statten",
}


@dataclass(frozen=True)
class Published:
    """How an authors' implementation maps to a model of this zoo.

    Args:
        repositories: "owner/name" on GitHub, or "owner/name:file" where that repository has several models, or
            "owner/name:file:class" where that file has.
        rules: (pattern, replacement) pairs of regular expressions on whole parameter names; the first match
            counts. In its result, a component `linear` becomes `conv`, and `bn` becomes `norm`.
        unused: patterns of names that the authors' forward never touches.
        spec: (file in lower case, constructor arguments, steps) -> the arguments of our spec. `neuron` among the
            constructor arguments holds the neurons' settings that the authors' code fixes, where they are known.
        variants: (the arguments of a model's full spec, the authors' weights) -> the variants of their code.
        defaults: ("owner/name:file" in lower case, name of the class) -> the defaults of their constructor's
            arguments, see ConstructorArguments.
        further: whether their constructor takes any other keyword.
    """

    repositories: tuple[str, ...]
    rules: Rules
    unused: tuple[str, ...]
    spec: Callable[[str, ConstructorArguments, int], dict[str, Any]]
    variants: Callable[[Mapping[str, Any], Weights], Iterable[Variant]]
    defaults: Callable[[str, str], Mapping[str, Any]]
    further: bool = False

    def rename(self, key: str) -> str | None:
        """Our name for the authors' `key`; "" if their code never uses it, None if it is unknown."""
        if any(re.fullmatch(pattern, key) for pattern in self.unused):
            return ""
        for pattern, replacement in self.rules:
            if match := re.fullmatch(pattern, key):
                return ".".join(WORDS.get(word, word) for word in match.expand(replacement).split("."))
        return None


def inside(places: Mapping[str, str], rules: Iterable[tuple[str, str]]) -> Rules:
    """The rules of a module's names, repeated for each place: authors' path of the module -> ours."""
    return tuple(
        (rf"{theirs}\.{pattern}", f"{ours}.{replacement}")
        for theirs, ours in places.items()
        for pattern, replacement in rules
    )


def square(height: int, width: int) -> int | tuple[int, int]:
    """An image size as a spec writes it: one number for a square."""
    return height if height == width else (height, width)


def load_published(model: nn.Module, state_dict: Mapping[str, Any], strict_spec: bool = True) -> nn.Module:
    """Load an authors' checkpoint into a model of this zoo, strictly, in place.

    Args:
        model: built by `create_model` as the authors published it (see `authors_spec`).
        state_dict: their names -> tensors, or a checkpoint that holds these under "state_dict" or "model". A leading
            "module." of the names is removed.
        strict_spec: refuse a model that differs from the authors' code in an argument that no parameter shows;
            with False, load and warn.

    Raises:
        UserError: a name is unknown, missing or given twice; a tensor has another shape, is not finite or not
            floating-point; an argument differs from the authors'. The model is unchanged.
    """
    published = getattr(model, "published", None)
    if published is None:
        raise UserError(f"{type(model).__name__} has no published weights")
    weights = _unwrapped(state_dict)
    target = model.state_dict()
    found, problems = _matched(published, weights, target)
    differences, right = _differences(model, published, weights)
    if problems:
        more = f" and {len(problems) - 6} more" if len(problems) > 6 else ""
        hint = f"; {', '.join(differences[:6])}" if differences else ""
        raise UserError(f"these weights are not of {model.spec}: {'; '.join(problems[:6])}{more}{hint}")
    refuse_not_finite(found, model)
    if differences:
        message = f"on these weights {model.spec} is not the authors' model: {'; '.join(differences)}"
        if strict_spec:
            raise UserError(f"{message}. Build {right}, or say strict_spec=False")
        warnings.warn(message, stacklevel=2)
    with torch.no_grad():
        for name, tensor in found.items():
            target[name].copy_(tensor)
    return model


def _unwrapped(state_dict: Mapping[str, Any]) -> Weights:
    """The authors' names -> tensors, out of what a checkpoint holds. Raises UserError."""
    if not isinstance(state_dict, Mapping):
        raise UserError(f"weights are a mapping from names to tensors, not {type(state_dict).__name__}")
    for wrapper in ("state_dict", "model"):
        state_dict = state_dict[wrapper] if isinstance(state_dict.get(wrapper), Mapping) else state_dict
    plain = [str(key).removeprefix("module.") for key in state_dict]
    if twice := {key for key in plain if plain.count(key) > 1} if len(set(plain)) < len(plain) else None:
        raise UserError(f"these weights have {min(twice)} with and without module. before it")
    return Weights(zip(plain, state_dict.values(), strict=True))


def _matched(published: Published, weights: Weights, target: Mapping[str, Tensor]) -> tuple[dict, list[str]]:
    """Our names -> the authors' tensors in our shapes, and a line for each that does not fit."""
    found: dict[str, Tensor] = {}
    problems = []
    for key, tensor in weights.items():
        name = published.rename(key)
        if name == "":
            continue
        if name not in target:
            problems.append(f"{key} has no place here")
        elif name in found:
            problems.append(f"{key} is the second for {name}")
        elif not isinstance(tensor, Tensor):
            problems.append(f"{key} is of type {type(tensor).__name__}, not a tensor")
        elif target[name].is_floating_point() and not tensor.is_floating_point():
            problems.append(f"{key} holds {tensor.dtype}, not floating-point numbers: dequantise the weights first")
        elif not _same_shape(tensor, target[name]):
            problems.append(f"{key} is {list(tensor.shape)}, {name} is {list(target[name].shape)}")
        else:
            found[name] = tensor.reshape(target[name].shape)
    return found, problems + [f"nothing for {name}" for name in target if name not in found]


def _same_shape(theirs: Tensor, ours: Tensor) -> bool:
    """Equal, or equal but for trailing ones (a linear layer's weight as a 1 x 1 convolution's)."""

    def core(shape: torch.Size) -> list[int]:
        sizes = list(shape)
        while len(sizes) > 2 and sizes[-1] == 1:
            sizes.pop()
        return sizes

    return core(theirs.shape) == core(ours.shape)


def _differences(model: nn.Module, published: Published, weights: Weights) -> Comparison:
    """The arguments in which the model differs from the authors' code, and the spec that does not. Raises UserError."""
    if not hasattr(model, "full_spec"):
        raise UserError(f"build {type(model).__name__} with create_model: nothing else says what it was made of")
    ours = parse(model.full_spec)
    variants = list(published.variants(ours.args, weights))
    # a plug-in's subclass is compared with the class that was published, not with its own defaults
    owner = next(cls for cls in type(model).__mro__ if "published" in vars(cls))
    name = next(name for name in names("model", families=False) if entry("model", name).factory is owner)
    return closest_variant(name, ours, [variant for variant in variants if weights.fit(variant)] or variants)


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
        repository: "owner/name" of the authors' code, or its address on GitHub, in any letter case.
        file: the path of the class's file in that repository (some have one file per data set).
        constructor: the keyword arguments of the class; those left out have the class's defaults.
        step: time steps, for classes that take them from the input.
        neuron: settings of the neurons that are not among those arguments, such as thresholds.
        class_name: the class, if its file has several.

    Raises:
        UserError: no model of this zoo was published there, or no spec expresses the arguments.
    """
    found = {}
    for name in names("model", families=False):
        if published := getattr(entry("model", name).factory, "published", None):
            found |= dict.fromkeys(map(str.lower, published.repositories), (name, published))
    where, file = repository_name(repository), file_name(file)
    for place in (f"{where}:{file}:{class_name.lower()}", f"{where}:{file}", where):
        if place in found:
            name, published = found[place]
            defaults = published.defaults(f"{where}:{file}", class_name)
            args = ConstructorArguments(constructor, defaults, f"the class in {repository}, {file},", published.further)
            args["neuron"] = neuron or {}
            return Spec(name, published.spec(file, args, step))
    if files := [place.split(":")[1] for place in found if place.startswith(where + ":")]:
        raise UserError(f"no model of this zoo was published in {repository}, {file}; there are: {', '.join(files)}")
    places = sorted({place.split(":")[0] for place in found})
    raise UserError(f"no model of this zoo was published in {repository}; there are: {', '.join(places)}")


def repository_name(text: str) -> str:
    """owner/name in lower case, from that or from an address on GitHub. Raises UserError."""
    host = r"(?:git\+)?(?:(?:https?|ssh)://)?(?:git@)?(?:(?:www\.)?github\.com[/:])?"
    match = re.fullmatch(host + r"([\w.-]+)/([\w.-]+?)(?:\.git)?(?:[/?#@].*)?", str(text).strip(), re.IGNORECASE)
    if not match:
        raise UserError(f"a repository is owner/name or https://github.com/owner/name, not {text!r}")
    name = "/".join(match.groups()).lower()
    return MOVED.get(name, name)


def file_name(text: str) -> str:
    """A path inside a repository, in lower case, from that or from its address on GitHub."""
    path = re.sub(
        r"^https?://github\.com/[^/]+/[^/]+/(?:blob|tree|raw)/[^/]+/", "", str(text).strip(), flags=re.IGNORECASE
    )
    return re.sub(r"^(?:\./|/)+", "", path).lower()
