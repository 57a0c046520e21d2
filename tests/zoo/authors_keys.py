"""The names that an authors' checkpoint of a published size has, after those in a golden file of the same class."""

from __future__ import annotations

import re
from itertools import product

import torch

from tests import golden_numbers as golden

MOST = 12  # blocks in a stage of any published size


def names_like(key: str) -> list[str]:
    """The key, and itself with other numbers in its first two places: its stage, its block, its layer."""
    pieces = re.split(r"(?<![^.])(\d+)(?![^.])|(?<=layer)(\d)(?=\.)", key)
    pieces = [piece for piece in pieces if piece is not None]
    varied = [place for place, piece in enumerate(pieces) if piece.isdigit()][:2]
    options = [[piece, *map(str, range(MOST))] if place in varied else [piece] for place, piece in enumerate(pieces)]
    return list(dict.fromkeys("".join(chosen) for chosen in product(*options)))


def authors_weights(
    model: torch.nn.Module, file: str, renamed: dict[str, str] | None = None
) -> dict[str, torch.Tensor]:
    """Tensors without data for every parameter of a model, under the authors' names; constants and unused ones too.

    `renamed`: words that another class of theirs has for some in the golden file.
    """
    target, weights, seen = model.state_dict(), {}, set()
    numbers = golden.read(next(path for path in golden.files(file)))
    for entry in numbers["state_dict"]:
        key = entry["key"]
        for old, new in (renamed or {}).items():
            key = re.sub(old, new, key)
        if model.published.rename(key) == "":
            # SWFormer's golden file has 0.6, the authors' default, which is published, 1
            told = file == "swformer" and key.endswith("threshold")
            weights[key] = torch.ones(()) if told else golden.draw(entry["key"], entry)
            continue
        for theirs in names_like(key):
            ours = model.published.rename(theirs)
            if ours in target and ours not in seen:
                seen.add(ours)
                weights[theirs] = torch.empty(target[ours].shape, dtype=target[ours].dtype, device="meta")
    return weights
