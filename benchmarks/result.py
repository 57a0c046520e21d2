"""Print and store a benchmark's result.

publish({"rounds": 9, "rows": rows}, Path("benchmarks/results/mine.json"), plot)   # mine.json and mine.png
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path


def publish(result: dict, path: Path | None, plot: Callable[[dict, Path], None], shown: str | None = None) -> None:
    """Print the result as JSON, or `shown`; with a path, write it there, and call `plot(result, path)` for the .png."""
    text = json.dumps(result, indent=2)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        plot(result, path.with_suffix(".png"))
    print(text if shown is None else shown)
