"""Checks what a user writes against a pydantic model; says what is wrong in one line.

    validated(Suite, {"entires": ["sdt"]}, "mine.yml")
    # UserError: mine.yml: unknown key 'entires'; did you mean 'entries'?
    validated(Settings, {"epochs": 0}, "command line", what="setting")
    # UserError: command line: epochs takes an integer, 1 or more, not 0

The words come from the model's JSON schema, so that a type or a limit is written once, in the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from registry import nearest
from registry.spec import show
from st_utils.errors import UserError

Model = TypeVar("Model")
TYPES = {
    "boolean": "true or false",
    "integer": "an integer",
    "null": "none",
    "number": "a number",
    "object": "names and values",
    "string": "a string",
}


def validated(
    model: type[Model], values: Mapping[str, Any], origin: str, what: str = "key", further: Iterable[str] = ()
) -> Model:
    """An instance of `model`, a pydantic model or dataclass, with these values.

    Args:
        origin: where the values come from: a file, or "command line".
        what: the word for an unknown name.
        further: names that may be meant by an unknown one, beside the model's.

    Raises:
        UserError: one line with `origin` and every mistake.
    """
    values = {str(name): value for name, value in values.items()}
    try:
        return model(**values)
    except ValidationError as error:
        schema = schema_of(model)
        mistakes = dict.fromkeys(_mistake(schema, values, each, what, further) for each in error.errors())
        raise UserError(f"{origin}: {'; '.join(mistakes)}") from None


@cache
def schema_of(model: Any) -> dict[str, Any]:
    """The JSON schema of a pydantic model or dataclass, which editors can check YAML files with."""
    return TypeAdapter(model).json_schema()


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises UserError when it is missing or not one."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold settings, one `name: value` a line")
    return content


def described(schema: Mapping[str, Any]) -> str:
    """What a value may be: `an integer, 1 or more, or none`, `one of "bf16", "fp16"`, `a list (each item a string)`."""
    if "anyOf" in schema:
        members = [described(member) for member in schema["anyOf"]]
        return (", or " if any("," in member for member in members) else " or ").join(members)
    if "enum" in schema:
        return f"one of {', '.join(map(show, schema['enum']))}"
    if "prefixItems" in schema:
        each = dict.fromkeys(map(described, schema["prefixItems"]))
        return f"a list of {len(schema['prefixItems'])} ({'each ' * (len(each) == 1)}{'; '.join(each)})"
    if schema.get("type") == "array":
        count = f" of {schema['minItems']} to {schema['maxItems']}" if "maxItems" in schema else ""
        return f"a list{count} (each item {described(schema['items'])})" if schema["items"] else "a list"
    return ", ".join(filter(None, (TYPES[schema["type"]], limits(schema))))


def limits(schema: Mapping[str, Any]) -> str:
    """The bounds of a number: `1 or more`, `0 to 1`, `above 0, 1 or less`; empty where it has none."""
    if "minimum" in schema and "maximum" in schema:
        return f"{schema['minimum']:g} to {schema['maximum']:g}"
    words = {
        "minimum": "{:g} or more",
        "exclusiveMinimum": "above {:g}",
        "maximum": "{:g} or less",
        "exclusiveMaximum": "below {:g}",
    }
    return ", ".join(text.format(schema[key]) for key, text in words.items() if key in schema)


def _mistake(schema: dict[str, Any], values: Mapping[str, Any], error: Any, what: str, further: Iterable[str]) -> str:
    """One error of pydantic in words: of the key that it is in, however deep it lies."""
    (name, *deeper), known = error["loc"], schema["properties"]
    if name not in known:
        choices = f"; keys: {', '.join(known)}" if what == "key" else ""
        return f"unknown {what} {name!r}{nearest(name, [*known, *further])}{choices}"
    if error["type"] == "missing" and not deeper:
        return f"{name} is missing"
    value = values[name]
    if "error" in error.get("ctx", {}):  # of a validator of our own
        return f"{name} {error['ctx']['error']}, not {show(value)}"
    literals = [text for member in known[name].get("anyOf", [known[name]]) for text in member.get("enum", ())]
    near = nearest(value, literals) if isinstance(value, str) else ""
    return f"{name} takes {described(known[name])}, not {show(value)}{near}"
