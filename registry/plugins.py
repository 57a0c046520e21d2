"""Plug-ins: files, modules and installed packages that register parts of their own.

    from registry import create, load_plugin
    load_plugin("my_parts.py")  # or the name of a module; each is loaded once
    create("attention", "mine(k=3)", dim=64)

A plug-in that fails while it is loaded leaves nothing registered, and its error is one line with file and line.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import logging
import os
import pkgutil
import re
import sys
import traceback
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from registry.catalogue import Catalogue
from registry.kinds import KINDS
from registry.listing import parts_of
from registry.part_source import code_digest, is_project
from registry.plugin_files import imported_modules, plugin_digest
from registry.spec import Spec, SpecError

logger = logging.getLogger(__name__)
ENTRY_POINT_GROUP = "spiking_transformer_zoo"
# how the frames between a plug-in's own begin: the import system's and this package's
_IMPORTING = ("<frozen", importlib.__file__, importlib.metadata.__file__, os.path.dirname(__file__) + os.sep)


def import_all(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that a part is registered by its file being there."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")


class PluginLoader:
    """Loads plug-ins into a catalogue, each once; one that fails leaves nothing registered."""

    def __init__(self, catalogue: Catalogue):
        self.catalogue = catalogue
        self.loaded: dict[str, frozenset[str]] = {}
        self._contents: dict[str, str] = {}  # digests of what was loaded
        self._modules: dict[str, set[str]] = {}  # those that registered a part while a plug-in was loaded
        self._points: set[str] = set()  # those that came from entry points

    def load(self, plugin: str | Path) -> None:
        """Load a plug-in: the path of a .py file, or the name of an importable module.

        A file that was edited since it was loaded is loaded again, and its parts replace the earlier ones.

        Raises SpecError in one line when it is not there or fails, with the file and line of the failure.
        """
        text, key = str(plugin), _key(plugin)
        if text.endswith(".py"):
            if not os.path.isfile(key):
                raise SpecError(f"plug-in file {text} does not exist")
            if key in self.loaded and self._contents[key] != plugin_digest(key):
                self._load_again(key, text)
            self._guarded(key, lambda: _import_file(Path(key)), text)
        elif all(part.isidentifier() for part in text.split(".")):
            self._guarded(key, lambda: _import_module(text), text)
        else:
            raise SpecError(f"plug-in {text!r} is neither a .py file nor a module's name")
        if key not in self._contents:
            with contextlib.suppress(SpecError):  # a module without a file, which is told where its digest is needed
                self._contents[key] = plugin_digest(key)

    def _load_again(self, key: str, shown: str) -> None:
        """Load an edited file in place of what it registered before, which stays where the edited file fails."""
        before, modules = self.catalogue.state(), dict(sys.modules)
        names, contents = self.loaded.pop(key), self._contents.pop(key)
        for name in imported_modules(key):
            del sys.modules[name]
        _remove(self.catalogue, self._modules[key])
        try:
            self._guarded(key, lambda: _import_file(Path(key)), shown)
        except BaseException:
            self.catalogue.restore(before)
            sys.modules.update(modules)
            self.loaded[key], self._contents[key] = names, contents
            raise
        logger.warning("plug-in %s was edited: it is loaded again", shown)

    def serves(self, plugin: str | Path, spec: str) -> bool:
        """Whether a spec names a part that this plug-in registered when it was loaded; yes where it registered none."""
        names = self.loaded[_key(plugin)]
        words = re.findall(r"[\w.]+(?![\w.]|\s*=)", spec)  # not the names of arguments
        return not names or any(word == name or word.startswith(f"{name}.") for word in words for name in names)

    def digests(self, spec: str) -> dict[str, str]:
        """The loaded plug-ins that serve a spec, of entry points too: file or module name -> digest of contents.

        An installed package that registered nothing serves none: nobody asked for it by name. The digest is of what
        this process loaded, whatever the files hold by now.
        """
        found: dict[str, str] = {}
        for key in sorted(self.loaded):
            if self.serves(key, spec) and (self.loaded[key] or key not in self._points):
                name, now = os.path.basename(key), plugin_digest(key)
                digest = found[name if name not in found else key] = self._contents.setdefault(key, now)
                if digest != now:
                    logger.warning("plug-in %s was edited after it was loaded: start Python again to use it", name)
        return found

    def part_digests(self, *parts: tuple[str, str | Spec]) -> dict[str, str]:
        """The parts that neither the project nor a plug-in brought: `attention mine` -> digest of code.

        `parts` are kinds and full specs; parts within them count. See `part_source` for what their code is.
        """
        found: dict[str, str] = {}
        every = [e for kind, full in parts for e in parts_of(self.catalogue, kind, self.catalogue.full(kind, full))]
        texts = {e.file: e.text for table in self.catalogue.entries.values() for e in table.values() if e.text}
        for entry in every:
            name, module = f"{entry.kind} {entry.name}", entry.factory.__module__
            known = is_project(module) or self._brought(module) or self.catalogue.in_family(entry.kind, entry.name)
            if known or name in found:
                continue
            found[name], without = code_digest(entry.factory, entry.file, texts)
            if without:
                lost = ", ".join(without)
                logger.warning("%s: no source of %s can be read: an edit there goes unnoticed", name, lost)
        return found

    def _brought(self, module: str) -> bool:
        """Whether a module came with a plug-in, or lies in a plug-in's package."""
        packages = {key.split(".")[0].split(":")[0] for key in self.loaded if not key.endswith(".py")}
        return module.split(".")[0] in packages or any(module in modules for modules in self._modules.values())

    def load_entry_points(self) -> None:
        """Load the plug-ins of installed packages (entry-point group `spiking_transformer_zoo`).

        One that fails is left out with a warning: nobody asked for it by name.
        """
        for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
            if point.value not in self.loaded:
                self._points.add(point.value)
            try:
                self._guarded(point.value, point.load, f"{point.name} = {point.value}")
            except SpecError as error:
                logger.warning("%s; it is left out", error)

    def _guarded(self, key: str, load: Callable[[], object], shown: str) -> None:
        if key in self.loaded:
            return
        before, known = self.catalogue.state(), self.catalogue.all_names()
        try:
            load()
        except BaseException as error:
            self.catalogue.restore(before)
            if not isinstance(error, (Exception, SystemExit)):  # Ctrl-C
                raise
            reason = ": ".join([type(error).__name__, *str(error).splitlines()[:1]])
            raise SpecError(f"plug-in {shown} failed{_place(error)}: {reason}") from error
        # by kind: an attention may have the name of a surrogate that is there
        self.loaded[key] = frozenset(name for _, name in self.catalogue.all_names() - known)
        if not key.endswith(".py"):
            self.catalogue.plugin_modules.add(re.split(r"[.:]", key)[0])
        entries = [(kind, e) for kind, table in self.catalogue.entries.items() for e in table.values()]
        self._modules[key] = {e.factory.__module__ for kind, e in entries if before[0][kind].get(e.name) is not e}


def _remove(catalogue: Catalogue, modules: set[str]) -> None:
    """Take out what these modules registered."""
    for kind in KINDS:
        kept = {name: e for name, e in catalogue.entries[kind].items() if e.factory.__module__ not in modules}
        catalogue.aliases[kind] = {alias: name for alias, name in catalogue.aliases[kind].items() if name in kept}
        families = catalogue.families[kind]
        catalogue.families[kind] = [f for f in families if getattr(f.lister, "__module__", "") not in modules]
        catalogue.entries[kind] = kept


def _key(plugin: str | Path) -> str:
    """A file's absolute path; a module's name."""
    text = str(plugin)
    return str(Path(text).expanduser().resolve()) if text.endswith(".py") else text


def _place(error: BaseException) -> str:
    """` at FILE:LINE` of the plug-in's own code, not of the libraries that it calls."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f" at {error.filename}:{error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(_IMPORTING)]
    if not frames:  # the plug-in did not begin to run
        return ""
    first = Path(frames[0].filename)
    home = f"{first.parent}{os.sep}" if first.name == "__init__.py" else str(first)
    last = [frame for frame in frames if frame.filename.startswith(home)][-1]
    return f" at {last.filename}:{last.lineno}"


def _import_module(name: str) -> None:
    module = importlib.import_module(name)
    if hasattr(module, "__path__") and not getattr(module, "__file__", None):
        raise ImportError(f"{name} is a folder without __init__.py: name one of its files")


def _import_file(path: Path) -> None:
    """Run a file as a module whose name is the same in every process."""
    name = f"zoo_plugin_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{zlib.crc32(os.fsencode(path)):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
