"""Plug-ins: a file, a module or an installed package that registers parts of its own."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

from registry.catalogue import Catalogue
from registry.spec import SpecError

ENTRY_POINT_GROUP = "spiking_transformer_zoo"


def import_all(package: str, path: Iterable[str]) -> None:
    """Import every module of a package, so that a part is registered by its file being there."""
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")


class PluginLoader:
    """Loads plug-ins into a catalogue, each once; one that fails leaves nothing registered."""

    def __init__(self, catalogue: Catalogue):
        self.catalogue = catalogue
        self.loaded: dict[str, ModuleType | None] = {}

    def load(self, plugin: str | Path) -> None:
        """Load a plug-in: the path of a .py file, or the name of an importable module.

        Raises SpecError in one line when it is not there or fails, with the file and line of the failure.
        """
        path = Path(plugin).expanduser()
        if path.suffix == ".py" or path.is_file():
            if not path.is_file():
                raise SpecError(f"plug-in file {plugin} does not exist")
            path = path.resolve()
            self._guarded(str(path), lambda: _import_file(path), str(plugin))
        else:
            self._guarded(str(plugin), lambda: importlib.import_module(str(plugin)), str(plugin))

    def load_entry_points(self) -> None:
        """Load the plug-ins of installed packages (entry-point group `spiking_transformer_zoo`)."""
        for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
            self._guarded(point.value, point.load, f"{point.name} = {point.value}")

    def _guarded(self, key: str, load: Callable[[], ModuleType], shown: str) -> None:
        if key in self.loaded:
            return
        before = self.catalogue.state()
        try:
            self.loaded[key] = load()
        except (Exception, SystemExit) as error:
            self.catalogue.restore(before)
            frame = traceback.extract_tb(error.__traceback__)[-1]
            message = str(error).split("\n", 1)[0]
            where = f"{frame.filename}:{frame.lineno}"
            raise SpecError(f"plug-in {shown} failed at {where}: {type(error).__name__}: {message}") from error


def _import_file(path: Path) -> ModuleType:
    name = f"zoo_plugin_{path.stem}_{abs(hash(str(path))):x}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
