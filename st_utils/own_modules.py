"""The project's modules have short names: a user's file of the same name, found first, is told of in one line.

require_own_modules("registry", "zoo")  # ImportError: /home/me/registry.py stands in the way of ...
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]  # the folder that the project's packages and main.py lie in


def require_own_modules(*names: str) -> None:
    """Raise ImportError, naming the file, where one of these top-level modules is found outside this project's folder.

    Python would otherwise import that file, and fail far away with an error that names no cause.
    """
    for name in names:
        module = sys.modules.get(name)
        spec = None if module else importlib.util.find_spec(name)
        found = getattr(module, "__file__", None) or getattr(spec, "origin", None)
        if found is None or not Path(found).resolve().is_relative_to(HOME):
            what = found or f"a module {name!r} that has no file"
            raise ImportError(
                f"{what} stands in the way of the module {name!r} of the Spiking Transformer Zoo: "
                "rename it, or move it out of the folders that Python imports from"
            )
