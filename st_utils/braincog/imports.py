"""Import BrainCog when a part of it is built; list its neurons and networks without importing it.

    from st_utils.braincog.imports import neuron_modules

    neuron_modules()["LIFNode"]  # 'base.node.node'

The import takes seconds, so the lists are read from the text of its files. Checked with BrainCog 0.2.7.19.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import random
import re
import sys
import types
import warnings
from collections.abc import Iterator
from pathlib import Path

from st_utils.errors import UserError

PREFIX = "braincog."
VERSION = "0.2.7.19"


@contextlib.contextmanager
def _importing() -> Iterator[None]:
    """While BrainCog is imported: provide `imp`, then restore the random state and the warning filters.

    BrainCog's dependency dv imports `imp`, which Python 3.12 has dropped. The import seeds `random` and adds filters.
    """
    state, stand_in = random.getstate(), None
    if sys.version_info >= (3, 12) and "imp" not in sys.modules and importlib.util.find_spec("imp") is None:
        stand_in = sys.modules["imp"] = types.ModuleType("imp")
        stand_in.find_module = importlib.import_module  # dv asks whether numpy is there: ImportError says no
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(state)
        if stand_in is not None:
            sys.modules.pop("imp", None)


def import_braincog(path: str) -> types.ModuleType:
    """Import the module `braincog.<path>`. Raises UserError when BrainCog is not installed or fails to import."""
    name = PREFIX + path
    if name in sys.modules:
        return sys.modules[name]
    try:
        with _importing():
            return importlib.import_module(name)
    except Exception as error:  # missing, or one of its many dependencies is or does not fit
        reason = str(error).split("\n", 1)[0]
        raise UserError(f"{name} can't be imported ({reason}): pip install braincog=={VERSION}") from error


@functools.cache
def sources(*parts: str) -> dict[str, str]:
    """Read the modules of these packages of BrainCog: module -> text; empty when BrainCog is not installed."""
    found = importlib.util.find_spec("braincog")
    root = Path(next(iter(found.submodule_search_locations))) if found else None
    files = [file for part in parts for file in sorted((root / part).rglob("*.py"))] if root else []
    return {".".join(f.relative_to(root).with_suffix("").parts): f.read_text(encoding="utf-8") for f in files}


@functools.cache
def neuron_modules() -> dict[str, str]:
    """BrainCog's neuron classes -> modules: the classes named *Node, and those that derive from one."""
    classes: dict[str, tuple[list[str], str]] = {}
    for module, text in sources("base", "model_zoo").items():
        for name, bases in re.findall(r"^class\s+(\w+)\s*\(([^)]*)\)", text, flags=re.MULTILINE):
            classes.setdefault(name, (re.findall(r"\w+", bases), module))

    def is_neuron(name: str) -> bool:
        return name.endswith("Node") or any(is_neuron(base) for base in classes.get(name, ((), ""))[0])

    return {name: module for name, (_, module) in sorted(classes.items()) if is_neuron(name)}


@functools.cache
def network_modules() -> dict[str, str]:
    """BrainCog's networks -> modules: those that it registers with timm, and its other classes named *Net or *NN."""
    named = re.compile(r"^@register_model\s+(?:class|def)\s+(\w+)|^class\s+(\w*(?:Net|NN))\(", re.MULTILINE)
    found = {}
    for module, text in sources("model_zoo").items():
        found |= {name or other: module for name, other in named.findall(text)}
    return dict(sorted(found.items()))
