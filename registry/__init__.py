"""Names to parts: the catalogue, the spec language and plug-in loading.

    from registry import register, create, names, parse, SpecError

    @register.attention("mine", source="where it was published")
    class Mine(nn.Module): ...

    create("attention", "mine(k=3)", dim=64)

This package imports nothing of the project, nor torch. `import zoo` registers the project's own parts.
"""

from registry.catalogue import KINDS, Catalogue, Entry, Register, nearest
from registry.plugins import PluginLoader, import_all
from registry.spec import Spec, SpecError, parse

_catalogue = Catalogue()
_plugins = PluginLoader(_catalogue)

register = Register(_catalogue)
create = _catalogue.create
names = _catalogue.names
entry = _catalogue.entry
canonical = _catalogue.canonical
load_plugin = _plugins.load
load_entry_points = _plugins.load_entry_points
catalogue = _catalogue

__all__ = [
    "KINDS", "Catalogue", "Entry", "Register", "Spec", "SpecError", "canonical", "catalogue", "create",
    "entry", "import_all", "load_entry_points", "load_plugin", "names", "nearest", "parse", "register",
]  # fmt: skip
