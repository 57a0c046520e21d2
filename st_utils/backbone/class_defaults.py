"""A model states its defaults in its class line: `class SDT(SpikingTransformer, embed_dim=512, depth=2)`.

    import inspect
    from st_utils.backbone.transformer import SpikingTransformer

    class Small(SpikingTransformer, depth=2): ...

    inspect.signature(Small).parameters["depth"].default  # 2

The registry reads a model's signature: what a spec may say, with which types and defaults. So the signature must
show the skeleton's 17 arguments too. docs/model-arguments.md compares this with a config dataclass for each model.
"""

from __future__ import annotations

import inspect
import typing
from functools import wraps
from typing import Any


class ClassDefaults:
    """Base of the skeletons: class keywords become the constructor's defaults, for the class and its subclasses.

    A class without a constructor has its parent's. A constructor with `**arguments` adds its own arguments to the
    parent's: `inspect.signature` then shows both, the parent's first. All arguments are keywords.

    Raises TypeError, when the class is defined, for a class keyword that is no argument of the constructor.
    """

    def __init_subclass__(cls, **defaults: Any):
        super().__init_subclass__()
        inner = cls.__init__
        parameters, hints = _parameters(cls)
        if unknown := defaults.keys() - parameters.keys():
            raise TypeError(f"{cls.__name__}: no argument is named {', '.join(sorted(unknown))}")

        @wraps(inner)
        def construct(self, **given: Any) -> None:
            inner(self, **{**defaults, **given})

        shown = [p.replace(default=defaults.get(name, p.default)) for name, p in parameters.items()]
        this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        construct.__signature__ = inspect.Signature([this, *shown])
        construct.__annotations__ = hints
        cls.__init__ = construct


def _parameters(cls: type) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    """The constructor's keyword arguments and their type hints; in place of `**arguments`, the parent's."""
    own = inspect.signature(cls.__init__).parameters.values()
    found, hints = {}, {}
    if "__init__" in cls.__dict__ and any(p.kind is p.VAR_KEYWORD for p in own):
        found, hints = _parameters(cls.__mro__[1])
    hints = hints | typing.get_type_hints(cls.__init__)
    further = {p.name: p for p in own if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name != "self"}
    return {name: p.replace(kind=p.KEYWORD_ONLY) for name, p in {**found, **further}.items()}, hints
