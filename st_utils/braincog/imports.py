"""Every import of BrainCog (github.com/BrainCog-X/Brain-Cog, checked with 0.2.7.19), and what its files hold.

BrainCog takes seconds to import, so nothing of it is before a part of it is asked for; listing reads its files.
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
    """For BrainCog's import alone, a stand-in for `imp`: dv needs it, and Python 3.12 has dropped it.

    Python's random state and warning filters, which the import changes, are put back.
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
    """The module `braincog.<path>`. Raises UserError when BrainCog is not installed or does not import."""
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
    """The text of the installed BrainCog's modules in these of its packages; empty when there is none."""
    found = importlib.util.find_spec("braincog")
    root = Path(next(iter(found.submodule_search_locations))) if found else None
    files = [file for part in parts for file in sorted((root / part).rglob("*.py"))] if root else []
    return {".".join(f.relative_to(root).with_suffix("").parts): f.read_text(encoding="utf-8") for f in files}


@functools.cache
def network_places() -> dict[str, str]:
    """BrainCog's networks -> modules: what it gives to timm by name, and its other classes that are networks."""
    named = re.compile(r"^@register_model\s+(?:class|def)\s+(\w+)|^class\s+(\w*(?:Net|NN))\(", re.MULTILINE)
    found = {}
    for module, text in sources("model_zoo").items():
        found |= {name or other: module for name, other in named.findall(text)}
    return dict(sorted(found.items()))
