"""Constructor arguments written once for a whole family of classes."""

from __future__ import annotations

import inspect
import typing
from functools import wraps
from typing import Any


class ClassDefaults:
    """`class SDT(SpikingTransformer, depth=2): ...` has its parent's constructor with another default.

    A subclass with a constructor of its own names what it adds, and hands the parent's arguments on as
    `**settings`; its signature then shows both, so that a spec may say either. Arguments are keywords.
    """

    def __init_subclass__(cls, **defaults: Any):
        super().__init_subclass__()
        inner = cls.__init__
        params, hints = _arguments(cls)
        if unknown := defaults.keys() - params.keys():
            raise TypeError(f"{cls.__name__}: no argument is named {', '.join(sorted(unknown))}")

        @wraps(inner)
        def construct(self, **given: Any) -> None:
            inner(self, **{**defaults, **given})

        shown = [p.replace(default=defaults.get(name, p.default)) for name, p in params.items()]
        this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        construct.__signature__ = inspect.Signature([this, *shown])
        construct.__annotations__ = hints
        cls.__init__ = construct


def _arguments(cls: type) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    """The constructor's keyword arguments and their types: the parent's first, where `**settings` stands for them."""
    own = inspect.signature(cls.__init__).parameters.values()
    found, hints = {}, {}
    if "__init__" in cls.__dict__ and any(p.kind is p.VAR_KEYWORD for p in own):
        found, hints = _arguments(cls.__mro__[1])
    hints = hints | typing.get_type_hints(cls.__init__)
    further = {p.name: p for p in own if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name != "self"}
    return {name: p.replace(kind=p.KEYWORD_ONLY) for name, p in {**found, **further}.items()}, hints
