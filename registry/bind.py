"""The arguments of a builder, read from its signature, and whether a spec's value fits one of them.

    params_of(lambda tau=2.0, head_node="lif": ..., ["node"])["head_node"].nested  # 'node'
    coerce(2, Param("tau", float, 2.0, None))  # 2.0

A type hint checks a value; without one, the type of the default does.
"""

from __future__ import annotations

import difflib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from registry.spec import Spec, SpecError, parse, show


@dataclass(frozen=True)
class Param:
    """One argument of a part: its type hint, its default and, where it holds a spec, the kind of part."""

    name: str
    hint: Any
    default: Any
    nested: str | None

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


def nested_kind(name: str, kinds: Iterable[str]) -> str | None:
    """`node`, `head_node` -> "node": an argument named after a kind of part takes a spec of that kind."""
    return next((kind for kind in kinds if name == kind or name.endswith("_" + kind)), None)


def params_of(factory: Callable[..., Any], kinds: Iterable[str]) -> dict[str, Param]:
    """The keyword arguments of a class or function, in order."""
    target = factory.__init__ if isinstance(factory, type) else factory
    try:
        hints = typing.get_type_hints(target)
    except Exception:  # a hint that names what is not imported (TYPE_CHECKING): any value fits then
        hints = {}
    params = {}
    for parameter in inspect.signature(factory).parameters.values():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        default = parameter.default
        untyped = Any if default is None or default is parameter.empty else type(default)
        hint = hints.get(parameter.name, untyped)
        params[parameter.name] = Param(parameter.name, hint, default, nested_kind(parameter.name, kinds))
    return params


def coerce(value: Any, param: Param) -> Any:
    """The value in the argument's type, 2 as 2.0 for a float. Raises SpecError that says what the argument takes."""
    if value is None and param.default is None:
        return None
    if param.nested:
        if value is None or value in ("none", "None"):
            if type(None) in typing.get_args(param.hint):
                return None
            value = None
        if isinstance(value, (str, Spec)):
            return parse(value)
        raise SpecError(f"takes the name or spec of a {param.nested}, not {show(value)}")
    fitted = _fit(value, param.hint)
    if fitted is _MISFIT:
        near = nearest(_as_text(value), _literals(param.hint)) if isinstance(_as_text(value), str) else ""
        raise SpecError(f"takes {_describe(param.hint)}, not {show(value)}{near}")
    return fitted


def nearest(name: str, choices: Iterable[str]) -> str:
    """`; did you mean 'lif'?`, with the nearest of the choices; an empty string where none is near."""
    by_lower = {choice.lower(): choice for choice in reversed(list(choices))}  # the first of equals wins
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f"; did you mean {by_lower[close[0]]!r}?" if close else ""


_MISFIT = object()


def _fit(value: Any, hint: Any) -> Any:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return tuple(value) if isinstance(value, list) else value
    if hint in (None, type(None)):
        return None if value is None else _MISFIT
    if origin in (typing.Union, types.UnionType):
        return next((v for v in (_fit(value, option) for option in options) if v is not _MISFIT), _MISFIT)
    if origin is typing.Literal:
        value = _as_text(value)
        return value if any(type(value) is type(o) and value == o for o in options) else _MISFIT
    if hint is bool:
        return value if isinstance(value, bool) else _MISFIT
    if hint is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else _MISFIT
    if hint is float:
        return _fit_float(value)
    if hint is str:
        value = _as_text(value)
        return value if isinstance(value, str) else _MISFIT
    if (origin or hint) in (list, tuple, Sequence):
        return _fit_items(value, options, fixed=_is_fixed(hint))
    return value  # a hint of some other class checks nothing


def _as_text(value: Any) -> Any:
    """A bare word is read as a spec without arguments; where text is wanted it is that text."""
    return value.name if isinstance(value, Spec) and not value.args else value


def _fit_float(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _MISFIT
    try:
        return float(value)
    except OverflowError:  # an integer over 1.8e308
        return _MISFIT


def _is_fixed(hint: Any) -> bool:
    """Whether a list hint says how many items there are: `tuple[int, int]`, not `tuple[int, ...]`."""
    options = typing.get_args(hint)
    return typing.get_origin(hint) is tuple and Ellipsis not in options


def _fit_items(value: Any, options: tuple, fixed: bool) -> Any:
    if not isinstance(value, (list, tuple)) or (fixed and len(value) != len(options)):
        return _MISFIT
    hints = options if fixed else [options[0] if options else Any] * len(value)
    items = tuple(_fit(v, hint) for v, hint in zip(value, hints, strict=True))
    return _MISFIT if any(item is _MISFIT for item in items) else items


_WORDS = {Any: "any value", bool: "true or false", int: "an integer", float: "a number", str: "a string"}
_WORDS[type(None)] = "none"


def _describe(hint: Any) -> str:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(option) for option in options)
    if origin is typing.Literal:
        return "one of " + ", ".join(show(option) for option in options)
    if (origin or hint) in (list, tuple, Sequence):
        if _is_fixed(hint):
            return f"a list of {len(options)} ({', '.join(map(_describe, options))})"
        return f"a list (each item {_describe(options[0])})" if options else "a list"
    return _WORDS.get(hint) or getattr(hint, "__name__", str(hint))


def _literals(hint: Any) -> list[str]:
    """The strings that a hint's `Literal`s allow."""
    if typing.get_origin(hint) is typing.Literal:
        return [option for option in typing.get_args(hint) if isinstance(option, str)]
    return [text for option in typing.get_args(hint) for text in _literals(option)]
