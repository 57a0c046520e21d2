"""The code of a part that no plug-in brought: of a notebook's cell, a script, a module that the user imports.

    digest, without = code_digest(registry.entry("attention", "mine"), texts={})
    # 64 hex digits, other ones once Mine, or what Mine refers to, is edited; the names whose source can't be read

What counts: the source of the registered class or function; of the classes and functions of the user's own that it
refers to, bases among them; the values of its plain constants; and the files of the user's modules that it calls by
`module.name`. Installed libraries, Python's own and this project do not count.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import linecache
import os
import symtable
import sys
import textwrap
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from registry.plugin_files import PROJECT, is_installed, plugin_digest
from registry.spec import SpecError

Code = type | types.FunctionType
NO_SOURCE = "no source"


def code_digest(factory: Any, file: str, texts: Mapping[str, str]) -> tuple[str, list[str]]:
    """The SHA-256 of a part's code, and the names of what it refers to that has no source.

    Args:
        factory: the registered class or function.
        file: where it was registered.
        texts: contents of files as they were when their parts were registered: a file that was edited since is not
            what this process runs. Other files are read as they are now.
    """
    found: set[tuple[str, str]] = set()
    without, seen, pending = [], set(), [factory]
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        name = getattr(value, "__qualname__", type(value).__name__)
        text = _source(value, file if value is factory else "", texts)
        if not text:
            without.append(name)
        found.add((name, text or NO_SOURCE))
        for word, referred in _referred(value, text):
            if isinstance(referred, types.ModuleType):
                found.add((word, _content(referred)))
            elif isinstance(referred, Code):
                pending.append(referred)
            else:
                found.add((word, repr(referred)))
    return hashlib.sha256(repr(sorted(found)).encode()).hexdigest(), without


def registering_file() -> str:
    """The file or notebook's cell whose code is registering a part now: of the nearest caller outside this package."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] == "registry":
        frame = frame.f_back
    return frame.f_code.co_filename


def read_text(file: str) -> str:
    """The text of a file or of a notebook's cell, empty where there is none."""
    linecache.checkcache(file)
    return "".join(linecache.getlines(file))


def is_project(module: str) -> bool:
    return module.split(".")[0] in PROJECT


def _source(value: Any, registered_in: str, texts: Mapping[str, str]) -> str:
    """The source of a class or function, with its decorators, or empty.

    inspect.getsource finds no class of a notebook: it looks for the module's file. A class's methods know their cell.
    """
    for file in _files(value, registered_in):
        text = texts.get(file) or read_text(file)
        try:
            node = _definition(value, ast.parse(text))
        except (SyntaxError, ValueError):
            continue
        if node is not None:
            lines = text.splitlines(keepends=True)
            return textwrap.dedent("".join(lines[_first_line(node) - 1 : node.end_lineno]))
    return ""


def _files(value: Any, registered_in: str) -> list[str]:
    """Where the definition may stand, the likeliest first."""
    if isinstance(value, types.FunctionType):
        return [inspect.unwrap(value).__code__.co_filename]
    module = sys.modules.get(getattr(value, "__module__", ""))
    methods = (_function(member) for member in vars(value).values()) if isinstance(value, type) else ()
    own = [f.__code__.co_filename for f in methods if f and f.__qualname__.startswith(f"{value.__qualname__}.")]
    return list(dict.fromkeys([*own, registered_in, getattr(module, "__file__", None) or ""]))


def _function(member: Any) -> types.FunctionType | None:
    """The function behind a member of a class: of a property its getter, of a wrapper what it wraps."""
    member = getattr(member, "fget", None) or getattr(member, "__func__", member)
    member = inspect.unwrap(member) if callable(member) else member
    return member if isinstance(member, types.FunctionType) else None


def _definition(value: Any, tree: ast.AST) -> ast.AST | None:
    """The node that defines a class, by its qualified name (the last of several), or a function, by its first line."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    if isinstance(value, types.FunctionType):
        line = inspect.unwrap(value).__code__.co_firstlineno
        return next((n for n in ast.walk(tree) if isinstance(n, functions) and _first_line(n) == line), None)
    return dict(_classes(tree, "")).get(getattr(value, "__qualname__", ""))


def _classes(tree: ast.AST, prefix: str) -> Iterator[tuple[str, ast.ClassDef]]:
    for node in ast.iter_child_nodes(tree):
        inner = prefix
        if isinstance(node, ast.ClassDef):
            yield f"{prefix}{node.name}", node
            inner = f"{prefix}{node.name}."
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = f"{prefix}{node.name}.<locals>."
        yield from _classes(node, inner)


def _first_line(node: ast.AST) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])


def _referred(value: Any, text: str) -> Iterator[tuple[str, Any]]:
    """The names in a source that stand for code, modules or constants of the user's own, with their values."""
    known = vars(sys.modules.get(getattr(value, "__module__", None), types))
    known = getattr(inspect.unwrap(value) if callable(value) else value, "__globals__", known)
    if isinstance(value, type):  # the bases that it was made with, whatever their names stand for by now
        known = {**known, **{base.__name__: base for base in value.__mro__}}
    try:
        table = symtable.symtable(text, "<part>", "exec")
    except SyntaxError:  # the line of a lambda that stands in a call
        return
    for name in sorted(_global_names(table)):
        referred = known.get(name)
        if isinstance(referred, types.ModuleType):
            if _own(referred.__name__) and getattr(referred, "__file__", None):
                yield name, referred
        elif isinstance(referred, Code):
            if _own(referred.__module__):
                yield name, referred
        elif name in known and _plain(referred):
            yield name, referred


def _global_names(table: symtable.SymbolTable) -> set[str]:
    """The names that a source takes from outside itself; not those that it assigns, whose values change."""
    outermost = table.get_type() == "module"
    symbols = [s for s in table.get_symbols() if s.is_referenced() and not s.is_assigned()]
    found = {symbol.get_name() for symbol in symbols if outermost or symbol.is_global()}
    return found.union(*map(_global_names, table.get_children()))


def _plain(value: Any) -> bool:
    """Whether a value is a constant: a list, say, may change while a part runs."""
    if isinstance(value, tuple):
        return all(map(_plain, value))
    return value is None or type(value) in (bool, int, float, str, bytes)


def _own(module: str) -> bool:
    """Whether a module is the user's: neither this project nor Python's nor an installed library."""
    if is_project(module) or module.split(".")[0] in sys.stdlib_module_names - {"__main__"}:
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is None or not is_installed(Path(file).resolve())


def _content(module: types.ModuleType) -> str:
    try:
        return plugin_digest(module.__name__)
    except SpecError:
        return os.path.basename(module.__file__)
