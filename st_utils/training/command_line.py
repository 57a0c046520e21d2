"""The command line of main.py: one option per setting, and errors of one line.

parser = OneLineParser("main.py")
add_settings(parser)
parser.parse(["--epochs", "3"])     # {"epochs": 3}
parser.parse(["--epoch", "3"])      # UserError: unknown argument --epoch; did you mean '--epochs'?; see --help
"""

from __future__ import annotations

import argparse
import re
import typing
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import yaml

from registry import nearest
from st_utils.errors import UserError
from st_utils.training.settings import Settings
from st_utils.training.validation import limits, schema_of


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with the nearest option for an unknown one.

    `_` in an option's name is `-`: `--batch_size 64` is `--batch-size 64`.
    """

    def error(self, message: str) -> typing.NoReturn:
        raise UserError(message)

    def parse(self, argv: Iterable[str]) -> dict[str, Any]:
        found, unknown = self.parse_known_args([_hyphened(token) for token in _joined(argv)])
        if unknown:
            options = [option for action in self._actions for option in action.option_strings]
            raise UserError(f"unknown argument {unknown[0]}{nearest(unknown[0].split('=')[0], options)}; see --help")
        return vars(found)


def _hyphened(token: str) -> str:
    option, equals, value = token.partition("=")
    return option.replace("_", "-") + equals + value if option.startswith("--") else token


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds one option per setting; its help has the range and the default. Parsing leaves out what is not given."""
    groups: dict[str, Any] = {}
    schemas = schema_of(Settings)["properties"]
    for setting in fields(Settings):
        group, schema = setting.metadata["group"], schemas[setting.name]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        members = schema.get("anyOf", [schema])  # none comes last
        default = "" if setting.default in (None, ()) else f"default {_shown(setting.default)}"
        further = "; ".join(filter(None, (limits(members[0]), default)))
        text = schema["description"] + (f" ({further})" if further else "")
        option = "--" + setting.name.replace("_", "-")
        common: dict[str, Any] = {"dest": setting.name, "default": argparse.SUPPRESS, "help": text}
        if setting.name == "plugin":
            common |= {"action": "append", "metavar": "FILE_OR_MODULE"}
        elif setting.name == "images":
            common |= {"nargs": "+", "metavar": "FILE"}
        elif setting.name == "query":
            common |= {"type": _from_yaml, "metavar": "[ROW,COLUMN]"}
        elif members[0]["type"] == "boolean":
            common |= {"action": argparse.BooleanOptionalAction}
        else:
            read = str if members[0]["type"] == "string" else _from_yaml
            common |= {"type": read, "metavar": _metavar(members[0])}
        groups[group].add_argument(option, **common)


def _joined(argv: Iterable[str]) -> list[str]:
    """`--x -1:1:51` as `--x=-1:1:51`: argparse takes what begins with - for another option."""
    joined: list[str] = []
    for word in argv:
        if joined and re.match(r"-[\d.]", word) and re.fullmatch(r"--[a-z][^=]*", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _from_yaml(text: str) -> Any:
    """The value that an option's text means in YAML; whether the setting takes it, `checked` says."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _metavar(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "{" + ",".join(schema["enum"]) + "}"
    if schema["type"] == "array":
        return "[LOW,HIGH]" if "prefixItems" in schema else "[N,...]"
    return {"integer": "N", "number": "X", "string": "TEXT"}[schema["type"]]


def _shown(value: Any) -> str:
    return "no" if value is False else f"{value:.4g}" if isinstance(value, float) else str(value)
