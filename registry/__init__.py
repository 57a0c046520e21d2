"""Names to parts: the kinds, the catalogue, the spec language and plug-ins.

    from registry import create, register
    from torch import nn

    @register.attention("mine", source="where it was published")
    class Mine(nn.Module):
        def __init__(self, dim: int, k: int = 1):
            super().__init__()

    create("attention", "mine(k=3)", dim=64).spec  # -> 'mine(dim=64, k=3)'

This package imports nothing of the project, nor torch. `import zoo` registers the project's own parts.
"""

from contextlib import AbstractContextManager
from functools import partial

from registry.bind import nearest
from registry.catalogue import Catalogue
from registry.entries import Entry
from registry.failures import PluginCodeError, PluginError, failure, from_outside
from registry.failures import plugin_errors as _plugin_errors
from registry.kinds import CONTRACTS, KINDS, PART_KINDS
from registry.listing import listing as _listing
from registry.listing import parts_of as _parts_of
from registry.plugin_files import plugin_digest
from registry.plugins import PluginLoader, import_all
from registry.register import Register
from registry.spec import Spec, SpecError, parse

parts = Catalogue()
_plugins = PluginLoader(parts)

register = Register(parts)
create = parts.create
names = parts.names
prefixes = parts.prefixes
entry = parts.entry
canonical = parts.canonical
full = parts.full
listing = partial(_listing, parts)
parts_of = partial(_parts_of, parts)
load_plugin = _plugins.load
load_entry_points = _plugins.load_entry_points
plugin_serves = _plugins.serves
plugin_digests = _plugins.digests
part_digests = _plugins.part_digests


def plugin_errors() -> AbstractContextManager[None]:
    """Inside, an exception out of a plug-in's code becomes a PluginCodeError of one line; see registry/failures.py."""
    return _plugin_errors(parts)


def plugin_failure(error: BaseException) -> str | None:
    """The one line for an exception that came out of a plug-in's code; None for one that did not."""
    return failure(error, parts)


__all__ = [
    "CONTRACTS", "KINDS", "PART_KINDS", "Catalogue", "Entry", "PluginCodeError", "PluginError", "Register", "Spec",
    "SpecError", "canonical", "create", "entry", "from_outside", "full", "import_all", "listing", "load_entry_points",
    "load_plugin", "names", "nearest", "parse", "part_digests", "parts", "parts_of", "plugin_digest", "plugin_digests",
    "plugin_errors", "plugin_failure", "plugin_serves", "prefixes", "register",
]  # fmt: skip
