"""What went wrong in the code of a plug-in, in one line that names its part, its file and its line.

    from registry import create, load_plugin, plugin_errors
    load_plugin("my_parts.py")
    with plugin_errors():  # PluginCodeError: attention 'mine' failed at my_parts.py:12: ValueError: k is odd; ...
        create("attention", "mine(k=3)", dim=64)

An exception of a plug-in is its author's to mend, so its place is told; an exception of this project passes as it is,
with its traceback. With the environment variable ZOO_TRACEBACK set, the traceback is printed before the line.
"""

from __future__ import annotations

import os
import sys
import traceback
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.plugin_files import PROJECT, is_installed
from registry.spec import Spec, SpecError

if TYPE_CHECKING:
    from registry.catalogue import Catalogue
    from registry.entries import Entry

VARIABLE = "ZOO_TRACEBACK"
FILE_MODULE = "zoo_plugin_"  # how the names of modules that are a plug-in's file begin


class PluginError(SpecError):
    """A plug-in's part that breaks the contract of its kind: one line that names the part."""


class PluginCodeError(PluginError):
    """An exception out of a plug-in's own code, in one line. Of several processes, one alone may meet it."""


def from_outside(entry: Entry) -> bool:
    """Whether a part's builder is not this project's own."""
    return _top(getattr(entry.factory, "__module__", None) or "") not in PROJECT


def failure(error: BaseException, catalogue: Catalogue) -> str | None:
    """The one line for an exception that came out of a plug-in's code; None for one that did not."""
    outside = [e for kind in catalogue.entries.values() for e in kind.values() if from_outside(e)]
    tops = {_top(e.factory.__module__) for e in outside if _is_users(e)} | catalogue.plugin_modules
    frames = [(f, line) for f, line in traceback.walk_tb(error.__traceback__) if _of(f, tops)]
    entry: Entry | None = getattr(error, "plugin_part", None)
    if entry is None and (not frames or _top(type(error).__module__) in PROJECT):
        return None
    entry = entry or next((part for f, _ in reversed(frames) if (part := _running(f, outside))), None)
    if entry is None:  # a helper of the part's, such as an autograd function: it is named where its file has one part
        in_file = [e for e in outside if e.factory.__module__ == frames[-1][0].f_globals["__name__"]]
        entry = in_file[0] if len(in_file) == 1 else None
    who = f"{entry.kind} {entry.name!r}" if entry else "code of a plug-in"
    at = f" at {frames[-1][0].f_code.co_filename}:{frames[-1][1]}" if frames else ""
    reason = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
    return f"{who} failed{at}: {reason}; {VARIABLE}=1 shows the traceback"


@contextmanager
def running(entry: Entry, values: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Inside runs code of a part from outside, built with `values`: an exception out of it is marked as that part's.

    A line of this project, such as `lif: tau must be at least 1`, is not: what the user typed is wrong. It is where the
    part asked for something of its own that is not there, by a spec that the user did not write.
    """
    try:
        yield
    except Exception as error:
        asked_by_part = isinstance(error, SpecError) and error.source and error.source not in _written(values or {})
        ours = _top(type(error).__module__) in PROJECT
        if not hasattr(error, "plugin_part") and not isinstance(error, PluginError) and (not ours or asked_by_part):
            error.plugin_part = entry
        raise


@contextmanager
def plugin_errors(catalogue: Catalogue) -> Iterator[None]:
    """Inside, an exception out of a plug-in's code becomes a PluginCodeError of one line; others pass as they are.

    With ZOO_TRACEBACK set, the traceback of whatever ends as one line is printed to stderr.
    """
    try:
        yield
    except Exception as error:
        told = failure(error, catalogue)
        if os.environ.get(VARIABLE) and (told or isinstance(error, ValueError)):
            traceback.print_exception(error, file=sys.stderr)
        if told:
            raise PluginCodeError(told) from error
        raise


def _top(module: str) -> str:
    return module.partition(".")[0]


def _is_users(entry: Entry) -> bool:
    """Whether the builder's module is a file of the user's, not one of an installed library."""
    file = getattr(sys.modules.get(entry.factory.__module__), "__file__", None)
    return file is not None and not is_installed(Path(file))


def _of(frame: types.FrameType, tops: set[str]) -> bool:
    top = _top(frame.f_globals.get("__name__") or "")
    return top.startswith(FILE_MODULE) or top in tops


def _running(frame: types.FrameType, outside: list[Entry]) -> Entry | None:
    """The part whose method or function a frame runs."""
    owner = frame.f_locals.get("self")
    return next(
        (e for e in outside if e.factory is type(owner) or getattr(e.factory, "__code__", None) is frame.f_code), None
    )


def _written(values: Mapping[str, Any]) -> set[str]:
    """The texts that the specs among a part's arguments were read from."""
    specs = [value for value in values.values() if isinstance(value, Spec)]
    inner = [_written(spec.args) for spec in specs]
    return {text for spec in specs for text in (spec.source, str(spec))}.union(*inner)
