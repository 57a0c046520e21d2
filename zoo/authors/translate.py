"""Read the options of the authors' scripts: which settings and arguments of the model they are here.

    from zoo.authors.translate import split_words, translated

    split_words(["--learning_rate", "0.1", "--seed", "1"])  # ({'learning_rate': 0.1}, ['--seed', '1'])
    found = translated({"learning_rate": 0.1, "num_heads": 4}, {"model": "sdt"})
    found.settings, found.arguments  # ({'model': 'sdt', 'lr': 0.1}, {'num_heads': 4})

`words.py` has the tables, `word_rules.py` what they can't say. Each word is taken with a line of the log that says for
what, or refused with what to type.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from registry import Spec, entry, parse
from registry.spec import show
from st_utils.errors import UserError
from st_utils.training.settings import read_yaml
from zoo.authors import words as w
from zoo.authors.word_rules import RULES, Reading, number
from zoo.recipe import recipe_aliases

logger = logging.getLogger("zoo")
KNOWN = frozenset([*w.SAME, *w.MODEL, *w.RULED, *w.IGNORED, *w.LIMITED, *w.OTHERWISE])
THEIRS = frozenset(("device", "output", "resume"))  # of the authors' machine, in a file of theirs
SINGLE_DASH = ("data_dir", "vb")  # -data-dir, as STAtten's script has it; -b and -c have one letter


class Translation(NamedTuple):
    """Settings by name; arguments of the model's spec by path, `attention.chunk`; lines for the log."""

    settings: dict[str, Any]
    arguments: dict[str, Any]
    notes: list[str]


def split_words(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Take the authors' words out of a command line: their values by name, and the rest.

    The rest is for this project's parser: `--scale 0.08 1.0`, which timm's scripts write, becomes `--scale [0.08,1.0]`.
    """
    found: dict[str, Any] = {}
    rest: list[str] = []
    place = 0
    while place < len(argv):
        token = argv[place]
        option, equals, value = token.partition("=")
        name = _option_name(option)
        ahead = _values_ahead(argv[place + 1 :])
        place += 1
        if name is None:
            rest.append(token)
        elif name == "config":  # -c
            rest += [f"--config={value}"] if equals else ["--config"]
        elif name in w.LISTS:
            texts = [value] if equals else list(argv[place : place + ahead])
            place += 0 if equals else ahead
            if name in KNOWN:
                found[name] = [_value(text) for text in texts]
            else:
                rest += [option, *texts] if len(texts) < 2 else [option, f"[{','.join(texts)}]"]
        elif name == "amp":
            if equals or ahead:
                rest.append(token)
            else:
                found["native_amp"] = True
        elif name in w.FLAGS or (name in w.BARE and not equals and not ahead):
            found[name] = _value(value) if equals else True
        elif name in w.NUMBERS and (
            "--show" in argv or not isinstance(_value(value or "".join(argv[place:][:1])), int)
        ):
            rest.append(token)
        elif name in KNOWN:
            if not equals and not ahead:
                raise UserError(f"argument {option}: expected one argument")
            text = value if equals else argv[place]
            found[name] = text if name in w.TEXTS else _value(text)
            place += 0 if equals else 1
        else:
            rest.append(token)
    return found, rest


def _option_name(option: str) -> str | None:
    """The name of an option, with `_`; None for a value and for an option of one dash that is no word of the tables."""
    name = option.lstrip("-").replace("-", "_")
    if option.startswith("--"):
        return name
    if not option.startswith("-"):
        return None
    return "config" if name == "c" else name if name in (*SINGLE_DASH, "b", "j", "d") else None


def _values_ahead(tokens: Sequence[str]) -> int:
    """The number of values that come next; a negative number is a value, another dash begins an option."""
    options = (place for place, token in enumerate(tokens) if re.match(r"-(?![0-9.])", token))
    return next(options, len(tokens))


def _value(text: str) -> Any:
    try:
        return number(yaml.safe_load(text))
    except yaml.YAMLError:
        return text


def split_file(path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings and the authors' words of a YAML file; a file that the authors published also names its recipe.

    Where a name stands with `-` and with `_`, the first is left out: the authors' scripts read the second alone. So are
    the authors' own device, output and checkpoint, and what is empty.
    """
    content = {str(name): value for name, value in read_yaml(path).items()}
    if not any(name.replace("-", "_") in KNOWN - w.NUMBERS for name in content):
        return content, {}
    twins = {name for name in content if "-" in name and name.replace("-", "_") in content}
    named = {name.replace("-", "_"): value for name, value in content.items() if name not in twins}
    named = {name: value for name, value in named.items() if value not in (None, "")}
    left = sorted(twins | (named.keys() & THEIRS))
    if left:
        logger.info("%s: left out: %s", path, ", ".join(left))
    if isinstance(named.get("amp"), bool):
        named["native_amp"] = named.pop("amp") or named.get("native_amp", False)
    words = {k: v for k, v in named.items() if k in KNOWN and (k not in w.NUMBERS or isinstance(v, int))}
    settings = {name: value for name, value in named.items() if name not in {*words, *THEIRS}}
    if settings.get("model") in w.NO_MODELS:
        raise UserError(f"{path}: no model {settings['model']!r} here: {w.NO_MODELS[settings['model']]}")
    return _recipe_of(path, "chunk_size" in words) | settings, words


def _recipe_of(path: str, statten: bool) -> dict[str, str]:
    """The recipe that a published file's path is an alias of; SDT and STAtten have files of the same names."""
    place = str(Path(path).resolve().with_suffix(""))
    for alias, recipe in recipe_aliases().items():
        if place.endswith(f"/{alias}") and recipe.startswith("statten") == statten:
            return {"recipe": recipe}
    return {}


def translated(words: Mapping[str, Any], settings: Mapping[str, Any], in_file: bool = False) -> Translation:
    """The settings with the authors' words in them, the arguments of the model, and lines for the log.

    Args:
        words: values by the authors' names.
        settings: what was given beside them under this project's names.
        in_file: the words are a whole file of the authors': what it leaves open has timm's defaults.

    Raises:
        UserError: a word without a counterpart, in one line that says what to type; a word and the setting that it
            is, both given.
    """
    reading = Reading(words, settings, in_file)
    reading.names()
    if words:
        reading.tables()
        for rule in RULES:
            rule(reading)
    return Translation(reading.settings, reading.arguments, reading.notes)


def joined(
    typed_words: Mapping[str, Any],
    typed: Mapping[str, Any],
    file_words: Mapping[str, Any],
    written: Mapping[str, Any],
    parts: Iterable[str] = (),
) -> Translation:
    """The translation of a command line over a --config file: what is typed wins, in whichever words.

    `parts` are the kinds of part that the command line names: --node, --attention.
    """
    names = {**w.SAME, **w.MODEL, **w.PARTS}
    decided = {*typed, *parts, *(names.get(word, word) for word in typed_words)}
    file_words = {word: value for word, value in file_words.items() if names.get(word, word) not in decided}
    written = {name: value for name, value in written.items() if name not in decided}
    return translated({**file_words, **typed_words}, {**written, **typed}, in_file=bool(file_words))


def with_arguments(spec: Spec, arguments: Mapping[str, Any]) -> Spec:
    """The model's spec with arguments set by path: `attention.scale` is the attention's.

    The scale of an attention that has none is left out, with a line in the log. Raises SpecError for an argument that
    the model does not have.
    """
    for path, value in sorted(arguments.items(), key=lambda item: item[0].count(".")):
        part, _, inner = path.partition(".")
        if not inner:
            spec = spec.replace(**{path: parse(value) if part in _kinds(spec) and isinstance(value, str) else value})
            continue
        default = entry("model", spec).params.get(part)
        nested = spec.args.get(part, default and default.default)
        if nested is None:
            raise spec.error(f"model {spec.name!r} has no {part} to give {inner}={show(value)} to")
        nested = parse(nested)
        if entry(part, nested).param(inner) is None:
            logger.info("%s: left out, %s %s has none", path, part, nested.name)
            continue
        spec = spec.replace(**{part: nested.replace(**{inner: value})})
    return spec


def _kinds(spec: Spec) -> set[str]:
    return {name for name, param in entry("model", spec).params.items() if param.nested}
