"""How much faster are event frames from the cache than reading and integrating the recordings in every epoch?

    python -m benchmarks.data --data-dir DIR [--dataset "nmnist(event_size=34)"] [--step 10] [--workers 0 2]
                              [--event-augment nda] [--rounds 5] [--batch-size 50] [--out FILE.json]

Both feed the same loader, which reads whole epochs of training batches `[B, T, 2, H, W]`; nothing is kept in memory
between epochs. A round has an epoch of each. Columns, medians over the rounds:

    workers            loader processes
    cache, integrate   frames per second
    ratio              seconds of integrating / seconds from the cache, of the same round

`benchmarks/results/` has no result of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import zoo  # noqa: F401  (registers the parts)
from registry import create
from st_utils.data import EpochLoader, build_loaders, loader
from st_utils.training.environment import environment


def epoch_seconds(batches: EpochLoader, epoch: int) -> float:
    """The seconds that reading all batches of an epoch takes."""
    batches.set_epoch(epoch)
    start = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - start


def measure(given: argparse.Namespace, workers: int, cache_dir: str) -> dict[str, float]:
    """The row for one number of workers: frames per second from the cache and by integrating, and the ratio."""
    loaders, counts = {}, {}
    for name, place in (("cache", cache_dir), ("integrate", "none")):
        data = create("dataset", given.dataset, data_dir=given.data_dir, cache_dir=place, step=given.step)
        loaders[name], _ = build_loaders(
            data, None, min(given.batch_size, len(data.train)), workers, event_augment=given.event_augment
        )
        epoch_seconds(loaders[name], 0)  # warms up: workers start, files enter the page cache
        counts[name] = len(loaders[name]) * min(given.batch_size, len(data.train)) * data.step
    seconds = {name: [] for name in loaders}
    for number in range(1, given.rounds + 1):
        for name, batches in loaders.items():
            seconds[name].append(epoch_seconds(batches, number))
    ratios = [slow / fast for fast, slow in zip(seconds["cache"], seconds["integrate"], strict=True)]
    speeds = {name: counts[name] / statistics.median(times) for name, times in seconds.items()}
    return {"workers": workers, **speeds, "ratio": statistics.median(ratios)}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("benchmarks.data", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--dataset", default="nmnist")
    parser.add_argument("--step", type=int, default=10)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--event-augment")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    loader.KEEP_BYTES = 0  # frames without augmentation would stay in memory after the first epoch
    with tempfile.TemporaryDirectory() as cache_dir:
        rows = [measure(given, workers, cache_dir) for workers in given.workers]
    print(f"{given.dataset}, T={given.step}, augmentation {given.event_augment or 'none'}; frames per second")
    for row in rows:
        cached, again = row["cache"], row["integrate"]
        print(f"workers {row['workers']}: cache {cached:,.0f}, integrating {again:,.0f}, ratio {row['ratio']:.2f}")
    if given.out:
        settings = {name: value for name, value in vars(given).items() if name not in ("out", "data_dir")}
        given.out.write_text(json.dumps({**settings, "rows": rows, **environment()}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
