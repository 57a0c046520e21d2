"""The spec language: one call expression, `NAME` or `NAME(arg=value, ...)`, parsed and never evaluated.

A value is a number, `true` / `false` / `none` (Python's spelling too), a quoted string, a list or tuple, or another
spec. `parse` turns text into a `Spec`, `str` turns a `Spec` into its canonical text: arguments sorted, every value in
one spelling. For every spec within the limits `parse(str(spec)) == spec`.

    spec = parse("sdt(node=lif(tau=2.), depth = 2)")
    spec.args["depth"], str(spec)  # 2, 'sdt(depth=2, node=lif(tau=2.0))'
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any

MAX_LENGTH, MAX_DEPTH = 4096, 16

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SPACE = re.compile(r"[ \t\r\n]*")
_CONSTANTS = {"true": True, "True": True, "false": False, "False": False, "none": None, "None": None}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}


class SpecError(ValueError):
    """A user's mistake in a spec: what is wrong, what would be right, and a caret under the place."""

    def __init__(self, message: str, source: str = "", pos: int | None = None):
        self.message, self.source, self.pos = message, source, pos
        super().__init__(message if pos is None or not source else f"{message}\n{_caret(source, pos)}")


def _caret(source: str, pos: int, width: int = 96) -> str:
    """The part of `source` around `pos` with a caret below it, two lines."""
    start = max(0, min(pos - width // 2, len(source) - width))
    window = "".join(c if c.isprintable() else " " for c in source[start : start + width])
    lead, tail = "..." if start else "", "..." if start + width < len(source) else ""
    return f"  {lead}{window}{tail}\n  {' ' * (len(lead) + pos - start)}^"


@dataclass(frozen=True, eq=False)
class Spec:
    """A parsed spec: a name and its arguments. Equal when the canonical texts are equal; hashable.

    `source` and the positions say where the spec stood in the user's text, for messages only.
    """

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)
    source: str = field(default="", repr=False)
    pos: int | None = field(default=None, repr=False)
    arg_pos: Mapping[str, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or self.name in _CONSTANTS:
            raise SpecError(f"{self.name!r} is not a name: write letters, digits and underscores")
        for key in self.args:
            if not isinstance(key, str) or "." in key or not _NAME.fullmatch(key):
                raise SpecError(f"{key!r} is not an argument name")
        frozen = {key: freeze(self.args[key]) for key in sorted(self.args)}
        object.__setattr__(self, "args", MappingProxyType(frozen))

    def replace(self, **changes: Any) -> Spec:
        """A copy with some arguments set (text values of nested parts may be spec strings)."""
        places = {key: place for key, place in self.arg_pos.items() if key not in changes}
        return Spec(self.name, {**self.args, **changes}, self.source, self.pos, places)

    def error(self, message: str, arg: str | None = None) -> SpecError:
        """A SpecError that points at this spec, or at one of its arguments."""
        return SpecError(message, self.source, self.arg_pos.get(arg, self.pos) if arg else self.pos)

    def __reduce__(self):
        return (parse, (str(self),))

    def __str__(self) -> str:
        return _print(self)

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other) if isinstance(other, Spec) else NotImplemented

    def __hash__(self) -> int:
        return hash(str(self))


def freeze(value: Any) -> Any:
    """The value as a spec holds it: lists as tuples, subclasses (enum, NumPy float) as their plain type."""
    if value is None or isinstance(value, (bool, Spec)):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(freeze(v) for v in value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, float):
        raise SpecError(f"a spec can't hold the number {float(value)}")
    if isinstance(value, str):
        return str.__str__(value)
    kind = type(value).__name__
    raise SpecError(f"a spec holds numbers, booleans, none, strings, lists and specs, not {kind}")


def show(value: Any, width: int = 60) -> str:
    """A value in a message: as a spec writes it, cut to `width`, or the name of a type that no spec holds."""
    try:
        text = _print(freeze(value))
    except SpecError:
        text = str(value) if isinstance(value, float) else f"an object of type {type(value).__name__}"
    return text if len(text) <= width else text[: width - 3] + "..."


def _print(value: Any) -> str:
    if isinstance(value, Spec):
        inner = ", ".join(f"{key}={_print(v)}" for key, v in value.args.items())
        return f"{value.name}({inner})" if inner else value.name
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_print(v) for v in value)}]"
    if isinstance(value, str):
        return '"' + "".join(_escape(c) for c in value) + '"'
    return repr(value)


def _escape(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() or ord(char) > 0xFFFF else f"\\u{ord(char):04x}"


def parse(text: str | Spec) -> Spec:
    """Parse one spec.

    Raises SpecError, with a caret under the place, for anything that is not exactly one well-formed spec of at most
    4,096 characters (as written and in canonical form) nested at most 16 deep. A Spec is returned as it is.
    """
    if isinstance(text, Spec):
        return text
    if not isinstance(text, str):
        raise SpecError(f"a spec is text such as 'spikformer(depth=2)', not {type(text).__name__}")
    if len(text) > MAX_LENGTH:
        raise SpecError(f"the spec has {len(text)} characters; at most {MAX_LENGTH} are allowed")
    return _parse(text)


@lru_cache(maxsize=1024)  # building a model parses hundreds of times, a dozen texts: a quarter of its time
def _parse(text: str) -> Spec:
    spec = (reader := _Reader(text)).spec()
    reader.skip()
    if reader.pos < len(text):
        raise reader.error(f"expected the end, found {text[reader.pos]!r}")
    if len(str(spec)) > MAX_LENGTH:
        raise SpecError(f"the spec's canonical form has more than {MAX_LENGTH} characters")
    return spec


class _Reader:
    """A recursive-descent reader over one text."""

    def __init__(self, text: str):
        self.text, self.pos, self.depth = text, 0, 0

    def error(self, message: str, pos: int | None = None) -> SpecError:
        return SpecError(message, self.text, self.pos if pos is None else pos)

    def skip(self) -> None:
        self.pos = _SPACE.match(self.text, self.pos).end()

    def peek(self) -> str:
        self.skip()
        return self.text[self.pos : self.pos + 1]

    def open(self) -> None:
        self.pos += 1
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error(f"nested more than {MAX_DEPTH} deep", self.pos - 1)

    def close(self) -> None:
        self.pos += 1
        self.depth -= 1

    def name(self, what: str) -> tuple[str, int]:
        self.skip()
        match = _NAME.match(self.text, self.pos)
        if not match:
            found = repr(self.text[self.pos]) if self.pos < len(self.text) else "the end"
            raise self.error(f"expected {what}, found {found}")
        start, self.pos = self.pos, match.end()
        return match.group(), start

    def spec(self) -> Spec:
        name, start = self.name("a name")
        if name in _CONSTANTS:
            raise self.error(f"expected a name, found the constant {name!r}", start)
        return self.call(name, start)

    def call(self, name: str, start: int) -> Spec:
        if self.peek() != "(":
            return Spec(name, {}, self.text, start)
        bracket = self.pos
        self.open()
        args: dict[str, Any] = {}
        places: dict[str, int] = {}
        while self.peek() != ")":
            key, place = self.name(f"an argument of {name!r} or ')'")
            if self.peek() != "=":
                if not self.text[self.pos : self.pos + 1]:
                    raise self.error(f"'(' is never closed: add ')' to {name!r}", bracket)
                raise self.error(f"arguments are written as name=value; {key!r} has no '='", place)
            if "." in key:
                raise self.error(f"{key!r} is not an argument name: it has a dot", place)
            if key in args:
                raise self.error(f"argument {key!r} is given twice", place)
            self.pos += 1
            args[key], places[key] = self.value(), place
            self.separator(")", bracket)
        self.close()
        return Spec(name, args, self.text, start, places)

    def separator(self, closing: str, bracket: int) -> None:
        char = self.peek()
        if char == ",":
            self.pos += 1
        elif not char:
            raise self.error(f"{self.text[bracket]!r} is never closed: add {closing!r}", bracket)
        elif char != closing:
            raise self.error(f"expected ',' or {closing!r}, found {char!r}")
        if char == "," and not self.peek():
            raise self.error(f"{self.text[bracket]!r} is never closed: add {closing!r}", bracket)

    def value(self) -> Any:
        char = self.peek()
        if not char:
            raise self.error("expected a value, found the end")
        if char in "\"'":
            return self.string(char)
        if char in "[(":
            return self.sequence("]" if char == "[" else ")")
        if char in "+-.0123456789":
            return self.number()
        name, start = self.name("a value")
        return _CONSTANTS[name] if name in _CONSTANTS else self.call(name, start)

    def sequence(self, closing: str) -> tuple:
        bracket = self.pos
        self.open()
        items = []
        while self.peek() != closing:
            items.append(self.value())
            self.separator(closing, bracket)
        self.close()
        return tuple(items)

    def number(self) -> int | float:
        match = _NUMBER.match(self.text, self.pos)
        after = match and self.text[match.end() : match.end() + 1]
        if not match or after == "." or re.match(r"\w", after):
            raise self.error("not a number")
        digits = match.group()
        number = int(digits) if re.fullmatch(r"[+-]?[0-9]+", digits) else float(digits)
        if isinstance(number, float) and math.isinf(number):
            raise self.error("the number is too large")
        self.pos = match.end()
        return number

    def string(self, quote: str) -> str:
        start = self.pos
        self.pos += 1
        out = []
        while self.pos < len(self.text) and self.text[self.pos] != quote:
            char = self.text[self.pos]
            self.pos += 1
            out.append(self.escape() if char == "\\" else char)
        if self.pos >= len(self.text):
            raise self.error(f"the string is never closed: add {quote}", start)
        self.pos += 1
        return "".join(out)

    def escape(self) -> str:
        """What the escape after a backslash stands for (nothing at the end of an unclosed string)."""
        char = self.text[self.pos : self.pos + 1]
        if not char:
            return ""
        if char == "u":
            code = self.text[self.pos + 1 : self.pos + 5]
            if not re.fullmatch(r"[0-9a-fA-F]{4}", code):
                raise self.error("\\u is followed by four hexadecimal digits", self.pos - 1)
            self.pos += 5
            return chr(int(code, 16))
        if char not in _ESCAPES:
            escapes = "\\n, \\t, \\r, \\\\, \\\", \\' or \\uXXXX"
            raise self.error(f"a backslash before {char!r} means nothing (use {escapes})", self.pos - 1)
        self.pos += 1
        return _ESCAPES[char]
