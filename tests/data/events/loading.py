"""Loads a data set from a folder as the tests of event data do."""

from __future__ import annotations

from pathlib import Path

from registry import create


def load(spec: str, root: Path, **offer):
    return create("dataset", spec, data_dir=str(root), cache_dir=str(root / ".cache"), **offer)
