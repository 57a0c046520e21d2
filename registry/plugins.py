"""Plug-ins: a file, a module or an installed package that registers parts of its own."""

from __future__ import annotations

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
from registry.plugin_files import plugin_digest
from registry.spec import SpecError

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
        self._points: set[str] = set()  # those that came from entry points

    def load(self, plugin: str | Path) -> None:
        """Load a plug-in: the path of a .py file, or the name of an importable module.

        Raises SpecError in one line when it is not there or fails, with the file and line of the failure.
        """
        text, key = str(plugin), _key(plugin)
        if text.endswith(".py"):
            if not os.path.isfile(key):
                raise SpecError(f"plug-in file {text} does not exist")
            self._guarded(key, lambda: _import_file(Path(key)), text)
        elif all(part.isidentifier() for part in text.split(".")):
            self._guarded(key, lambda: _import_module(text), text)
        else:
            raise SpecError(f"plug-in {text!r} is neither a .py file nor a module's name")

    def serves(self, plugin: str | Path, spec: str) -> bool:
        """Whether a spec names a part that this plug-in registered when it was loaded; yes where it registered none."""
        names = self.loaded[_key(plugin)]
        words = re.findall(r"[\w.]+(?![\w.]|\s*=)", spec)  # not the names of arguments
        return not names or any(word == name or word.startswith(f"{name}.") for word in words for name in names)

    def digests(self, spec: str) -> dict[str, str]:
        """The loaded plug-ins that serve a spec, of entry points too: file or module name -> digest of contents.

        An installed package that registered nothing serves none: nobody asked for it by name.
        """
        found: dict[str, str] = {}
        for key in sorted(self.loaded):
            if self.serves(key, spec) and (self.loaded[key] or key not in self._points):
                name = os.path.basename(key)
                found[name if name not in found else key] = plugin_digest(key)
        return found

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
        self.loaded[key] = self.catalogue.all_names() - known


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
