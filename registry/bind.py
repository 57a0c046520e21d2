"""What a builder's signature says of its arguments, and whether a spec's value fits one of them."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from registry.spec import Spec, SpecError, parse


@dataclass(frozen=True)
class Param:
    """One argument of a part: its type hint, its default, and the kind of part that it names, if any."""

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
    except Exception:  # a hint that can't be resolved checks nothing
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
    """The value as the argument wants it. Raises SpecError that says what the argument takes."""
    if param.nested:
        if value is None and (param.default is None or _allows_none(param.hint)):
            return None
        if isinstance(value, (str, Spec)):
            return parse(value)
        raise SpecError(f"takes the name or spec of a {param.nested}, not {_show(value)}")
    fitted = _fit(value, param.hint)
    if fitted is _MISFIT:
        raise SpecError(f"takes {_describe(param.hint)}, not {_show(value)}")
    return fitted


_MISFIT = object()


def _fit(value: Any, hint: Any) -> Any:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if hint in (Any, inspect.Parameter.empty):
        return tuple(value) if isinstance(value, list) else value
    if hint in (None, type(None)):
        return None if value is None else _MISFIT
    if origin in (typing.Union, types.UnionType):
        return next((v for v in (_fit(value, option) for option in options) if v is not _MISFIT), _MISFIT)
    if origin is typing.Annotated:
        return _fit(value, options[0])
    if origin is typing.Literal:
        text = value.name if isinstance(value, Spec) and not value.args else value
        return text if any(type(text) is type(o) and text == o for o in options) else _MISFIT
    if hint is bool:
        return value if isinstance(value, bool) else _MISFIT
    if hint is int:
        return value if isinstance(value, int) and not isinstance(value, bool) else _MISFIT
    if hint is float:
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else _MISFIT
    if hint is str:
        return value.name if isinstance(value, Spec) and not value.args else value if isinstance(value, str) else _MISFIT
    if (origin or hint) in (list, tuple, Sequence):
        return _fit_items(value, options, fixed=(origin or hint) is tuple and Ellipsis not in options)
    return value


def _fit_items(value: Any, options: tuple, fixed: bool) -> Any:
    if not isinstance(value, (list, tuple)) or (options and fixed and len(value) != len(options)):
        return _MISFIT
    hints = options if fixed and options else [options[0] if options else Any] * len(value)
    items = tuple(_fit(v, hint) for v, hint in zip(value, hints, strict=True))
    return _MISFIT if any(item is _MISFIT for item in items) else items


def _describe(hint: Any) -> str:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(option) for option in options)
    if origin is typing.Literal:
        return "one of " + ", ".join(_show(option) for option in options)
    words = {bool: "true or false", int: "an integer", float: "a number", str: "a string", type(None): "none"}
    if hint in words:
        return words[hint]
    if (origin or hint) in (list, tuple, Sequence):
        inner = ", ".join(_describe(o) for o in options if o is not Ellipsis)
        return f"a list of ({inner})" if inner else "a list"
    return str(hint)


def _allows_none(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, Spec) else repr(value)
