"""Check that the project's modules, which have short names, are not hidden by a user's files of the same names.

require_own_modules("registry", "zoo")  # ImportError: /home/me/registry.py stands in the way of ...
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]  # the folder of the project's packages and of main.py


def require_own_modules(*names: str) -> None:
    """Raise ImportError, naming the file, if one of these top-level modules lies outside the project's folder.

    Without this check Python would import that file, and fail later with an error that does not name the cause.
    """
    for name in names:
        module = sys.modules.get(name)
        spec = None if module else importlib.util.find_spec(name)
        file = getattr(module, "__file__", None) or getattr(spec, "origin", None)
        if file is None or not Path(file).resolve().is_relative_to(HOME):
            what = file or f"a module {name!r} that has no file"
            raise ImportError(
                f"{what} stands in the way of the module {name!r} of the Spiking Transformer Zoo: "
                "rename it, or move it out of the folders that Python imports from"
            )
