"""Where a benchmark's result goes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def publish(result: dict, path: Path | None, plot: Callable[[dict, Path], None]) -> None:
    """Print the result; with a path, keep it there as JSON, and its plot beside it as .png."""
    text = json.dumps(result, indent=2)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        plot(result, path.with_suffix(".png"))
    print(text)
