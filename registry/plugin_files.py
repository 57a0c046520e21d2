"""What a plug-in is made of: its files and those of its own that it imports, and one digest of their contents.

    plugin_digest("my_parts.py")     # 64 hex digits; other ones once my_parts.py, or a file it imports, is edited

A run records these digests, so that an edited part is not taken for the one that was trained.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from registry.spec import SpecError

LARGE = 2**24  # bytes; a larger file of a package (weights, say) counts by its size
PROJECT = ("registry", "st_utils", "zoo", "benchmarks")
_STANDARD = Path(os.__file__).resolve().parent  # Python's own library


def plugin_digest(plugin: str | Path) -> str:
    """The SHA-256 of a plug-in's contents, 64 hex digits; of a single file, that file's own.

    Args:
        plugin: the path of a .py file; the name of a module or package, with `:NAME` or without. Of a package, all
            its files count. So do the modules that a file imports, but not installed libraries nor this project.

    Raises:
        SpecError: a file can't be read, or the module can't be found.
    """
    files = _files(str(plugin))
    try:
        digests = {name: _content(path) for name, path in files.items()}
    except OSError as error:
        raise SpecError(f"plug-in {plugin}: {error.filename} can't be read: {error.strerror}") from None
    if len(digests) == 1:
        return next(iter(digests.values()))
    return hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()


def _content(path: Path) -> str:
    size = path.stat().st_size
    return hashlib.sha256(path.read_bytes() if size <= LARGE else f"{size} bytes".encode()).hexdigest()


def imported_modules(plugin: str) -> set[str]:
    """The names of the user's own modules that a plug-in's file imports, and those that these import."""
    files = {os.fspath(path) for path in list(_files(plugin).values())[1:]}
    found = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    return {name for name, file in found.items() if file and os.path.realpath(file) in files}


def _files(plugin: str) -> dict[str, Path]:
    """The files by a name that does not depend on where they lie."""
    if plugin.endswith(".py"):
        path = Path(plugin).expanduser().resolve()
        found = {path.name: path}
    else:
        found = _module_files(plugin.split(":")[0])
    pending = [path for path in found.values() if path.suffix == ".py"]
    while pending:
        for name, path in _imported(pending.pop()):
            if path not in found.values():
                found[name] = path
                pending.append(path)
    return found


def _module_files(name: str) -> dict[str, Path]:
    """All files of the package that a module belongs to; the module's own file where it belongs to none."""
    words = name.split(".")
    for count in range(1, len(words) + 1):
        origin = _origin(".".join(words[:count]))
        if origin is None:  # a namespace, whose other folders are not the plug-in's
            continue
        if origin.name != "__init__.py":
            return {origin.name: origin}
        home = origin.parent
        inside = (path for path in sorted(home.rglob("*")) if path.is_file() and path.suffix != ".pyc")
        named = {str(path.relative_to(home.parent)): path for path in inside}
        return {text: path for text, path in named.items() if not any(p.startswith(".") for p in Path(text).parts)}
    raise SpecError(f"plug-in module {name} has no file")


def _imported(path: Path) -> Iterator[tuple[str, Path]]:
    """The name and file of each module of the user's own that the code of a file imports and that is loaded.

    Read from the code, and not from what its loading added to sys.modules: two plug-ins may share a module.
    """
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # a template of a package, say: it is no module
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue  # relative imports stay within the package, all of whose files count
        for name in names:
            origin = _origin(name) if name in sys.modules and name.split(".")[0] not in PROJECT else None
            if origin and origin.suffix == ".py" and not is_installed(origin):
                yield name, origin


def _origin(name: str) -> Path | None:
    """The file of a module; None where it has none."""
    module = sys.modules.get(name)
    try:
        origin = (
            getattr(module, "__file__", None) if module else getattr(importlib.util.find_spec(name), "origin", None)
        )
    except (ImportError, ValueError):
        origin = None
    return Path(origin).resolve() if origin and Path(origin).is_file() else None


def is_installed(path: Path) -> bool:
    """Whether a file belongs to Python or to an installed library."""
    in_site = any(part in ("site-packages", "dist-packages") for part in path.parts)
    return in_site or path.is_relative_to(_STANDARD)
