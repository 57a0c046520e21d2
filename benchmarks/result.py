"""Name, print and store a benchmark's result.

result_path("nodes", {"device": "cpu (AMD EPYC)", "instruction_set": "avx2", "threads": 2})
#                                                           benchmarks/results/nodes-cpu-amd-epyc-avx2-2-threads.json
publish({"rounds": 9, "rows": rows}, Path("benchmarks/results/mine.json"), plot)   # mine.json and mine.png
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def result_path(name: str, settings: dict) -> Path:
    """The JSON file in benchmarks/results that is named after the machine.

    Args:
        name: the benchmark's.
        settings: has `device` and `threads`, and on a CPU `instruction_set`, which may be None.
    """
    words = [name, settings["device"], settings.get("instruction_set") or "", f"{settings['threads']} threads"]
    return RESULTS / (re.sub(r"\W+", "-", " ".join(words).lower()) + ".json")


def publish(result: dict, path: Path | None, plot: Callable[[dict, Path], None], shown: str | None = None) -> None:
    """Print the result as JSON, or `shown`; with a path, write it there, and call `plot(result, path)` for the .png."""
    text = json.dumps(result, indent=2)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        plot(result, path.with_suffix(".png"))
    print(text if shown is None else shown)
