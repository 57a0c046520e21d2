"""A suite of three small runs, and what its store holds while they are made."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

TINY = """
about: a test
dataset: digits
seeds: [0]
settings: {epochs: 1, train_images: 64, test_images: 20, batch_size: 32}
entries:
  - {model: "spikformer(embed_dim=16, depth=1, num_heads=2, step=2)", attention: [ssa, identity, random]}
"""


def rows_of(store: Path) -> list[sqlite3.Row]:
    if not store.exists():
        return []
    with sqlite3.connect(store, timeout=30) as db:
        db.row_factory = sqlite3.Row
        try:
            return db.execute("SELECT * FROM runs").fetchall()
        except sqlite3.OperationalError:  # not made yet
            return []


def statuses(rows) -> Counter:
    return Counter(row["status"] for row in rows)


def ended(store: Path) -> dict[str, float]:
    return {row["key"]: row["ended"] for row in rows_of(store) if row["status"] == "done"}


def wait_for(store: Path, condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition(rows_of(store)):
        assert time.monotonic() < end, [dict(row) for row in rows_of(store)]
        time.sleep(0.05)


PHOTOS = """
dataset: folder
recipe: none
seeds: [0]
settings: {epochs: 1, batch_size: 8, img_size: 8}
entries: ["spikformer(embed_dim=8, depth=1, num_heads=2, step=2)"]
"""


def photos(root: Path, seed: int) -> str:
    """Write ten images of each of two classes, drawn by `seed`, and return their folder."""
    pixels = np.random.RandomState(seed)
    for label in ("cat", "dog"):
        (root / label).mkdir(parents=True)
        for number in range(10):
            image = Image.fromarray(pixels.randint(0, 256, (8, 8, 3), dtype=np.uint8))
            image.save(root / label / f"{number}.bmp")
    return str(root)
