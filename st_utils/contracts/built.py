"""What a part must be when it is built: an `nn.Module` that can be used, or a `Surrogate` that gives a gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from registry import CONTRACTS, Entry, PluginError
from st_utils.data.seeding import seeded
from st_utils.kernels.node.surrogates import SHAPES
from st_utils.node.surrogate import Surrogate


def broken(entry: Entry, what: str) -> PluginError:
    """The error of a part that breaks its kind's contract."""
    article = "an" if entry.kind[0] in "aeiou" else "a"
    named = "a data set" if entry.kind == "dataset" else f"{article} {entry.kind}"
    return PluginError(f"{entry.kind} {entry.name!r} {what}; {named} is {CONTRACTS[entry.kind]}")


def what_is(value: Any) -> str:
    """What a value is, in words: `a tuple`, `an array of [3, 8]`, `None`."""
    if value is None:
        return "None"
    if isinstance(value, (np.ndarray, Tensor)):
        return f"a {type(value).__name__} of {list(value.shape)}"
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def check_module(entry: Entry, part: Any) -> None:
    """Raise PluginError for what is no `nn.Module` ready to use; of a model, one with nothing to train."""
    if not isinstance(part, nn.Module):
        raise broken(entry, f"is built as {what_is(part)}")
    if "_modules" not in vars(part):
        raise broken(entry, "does not call super().__init__() in its constructor")
    if entry.kind == "model" and not any(p.requires_grad for p in part.parameters()):
        raise broken(entry, "has no parameter to train")


def check_surrogate(entry: Entry, part: Any) -> None:
    """Raise PluginError for what is no `Surrogate`, or whose gradient or spikes have another shape than u."""
    if not isinstance(part, Surrogate):
        raise broken(entry, f"is built as {what_is(part)}")
    if not hasattr(part, "alpha") or not hasattr(part, "strict"):
        raise broken(entry, "does not call super().__init__(alpha, strict) in its constructor")
    u = torch.linspace(-2, 2, 8).view(2, 4).requires_grad_()
    with seeded((0,)), torch.enable_grad():
        slope, spikes = part.gradient(u.detach()), part.spike(u)
    for name, value in (("gradient(u)", slope), ("spike(u)", spikes)):
        if not isinstance(value, Tensor) or value.shape != u.shape:
            found = list(value.shape) if isinstance(value, Tensor) else what_is(value)
            raise broken(entry, f"gives a {name} that is {found} for a u of {list(u.shape)}")
    if not spikes.requires_grad:
        raise broken(entry, "gives spikes without a gradient: define gradient(u) and leave spike(u) as it is")
    if part.kernel is not None:
        if part.kernel not in SHAPES:
            raise broken(entry, f"has the kernel {part.kernel!r}, not None nor one of {', '.join(SHAPES)}")
        if len(part.kernel_numbers()) != 2:
            raise broken(entry, "gives kernel_numbers() that are not the two numbers a and b of its kernel")
