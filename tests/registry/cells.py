"""Notebook cells without a notebook: a text that runs under a file name of its own, which linecache knows."""

from __future__ import annotations

import hashlib
import linecache
import sys
import textwrap
import types


class Notebook:
    """A module whose code comes cell by cell, as IPython runs it; `close` forgets it."""

    def __init__(self, name: str = "notebook_of_a_test"):
        self.module = sys.modules[name] = types.ModuleType(name)

    def run(self, text: str) -> None:
        text = textwrap.dedent(text)
        file = f"<cell {hashlib.sha256(text.encode()).hexdigest()[:12]}>"
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
        exec(compile(text, file, "exec"), vars(self.module))

    def close(self) -> None:
        sys.modules.pop(self.module.__name__, None)
