"""Compare the facts of one run in two trees.

    compare(base, here)  # Verdict('different', 'step 2: train_loss 2.25 in base, 2.31 here; 57 of 60 tensors ...', ...)

Facts are {kind: {item: {field: value}}}, kinds in the order in which a difference spreads. An item that only one side
has (a step, a tensor, a layer) is a difference, and so are two runs that failed or left nothing to compare. A field of
an item, a setting or a figure that only one side has is no difference but news, which is printed at the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

GROWING = ("setting", "spec", "figure")  # kinds to which a version may add items
NEEDED = {
    "spec": ("full_spec", "params"),
    "figure": ("firing_rate", "sops", "macs", "train_loss", "test_loss"),
    "tensor": (),
    "folded": ("logits",),
    "layer": (),
    "step": (),
    "epoch": (),
}
PARTS = {"tensor": "tensors", "folded": "folded tensors", "layer": "layers"}  # kinds whose differing items are counted


class Verdict(NamedTuple):
    """`word` is same, different or failed; `reason` is the first difference of each kind; `news` only one side has."""

    word: str
    reason: str
    news: frozenset[str]


def compare(base: dict[str, Any], here: dict[str, Any]) -> Verdict:
    """The verdict on one run; `base` and `here` are what the two trees found."""
    sides = {"in base": base, "here": here}
    failed = [f"status {found['status']} {side}: {found['said']}" for side, found in sides.items() if found["status"]]
    if failed:
        return Verdict("failed", "; ".join(failed), frozenset())
    missing = [text for side, found in sides.items() for text in _missing(found["facts"], side)]
    reasons = [*_differences(base["facts"], here["facts"]), *missing]
    news = frozenset(_news(base["facts"], here["facts"]))
    return Verdict("different" if reasons else "same", "; ".join(reasons), news)


def _missing(facts: dict[str, Any], side: str) -> Iterator[str]:
    """What a comparison needs and this side lacks, a line for each."""
    for kind, items in NEEDED.items():
        if not facts.get(kind):
            yield f"no {kind} {side}"
        for item in items:
            if item not in facts.get(kind, {}):
                yield f"no {item} {side}"


def _differences(base: dict[str, Any], here: dict[str, Any]) -> Iterator[str]:
    """The first difference of each kind that differs; of PARTS also how many items differ."""
    for kind in dict.fromkeys([*base, *here]):
        ours, theirs = here.get(kind, {}), base.get(kind, {})
        changed = []
        for item in dict.fromkeys([*theirs, *ours]):
            if item in ours and item in theirs:
                changed += _fields(item, theirs[item], ours[item])
            elif kind not in GROWING:
                changed.append((item, f"{item} only {'here' if item in ours else 'in base'}"))
        if changed:
            count = len({item for item, _ in changed})
            total = f"{count} of {len({*theirs, *ours})} {PARTS[kind]}, first " if kind in PARTS else f"{kind} "
            yield total + changed[0][1]


def _fields(item: str, base: dict[str, Any], here: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(item, difference) of the first field of an item that differs."""
    for field in base:
        if field in here and _text(base[field]) != _text(here[field]):
            name = item if field == "value" else f"{item}: {field}"
            yield item, f"{item}: other bits" if field == "bits" else f"{name} {_changed(base[field], here[field])}"
            return


def _changed(base: Any, here: Any) -> str:
    """`1 in base, 2 here`; of long texts only the part around the first difference."""
    old, new = _text(base), _text(here)
    if max(len(old), len(new)) > 60:
        same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        start = max(0, same - 20)
        old, new = (f"...{text[start : same + 30]}..." for text in (old, new))
    return f"{old} in base, {new} here"


def _news(base: dict[str, Any], here: dict[str, Any]) -> Iterator[str]:
    """What only one side has and is no difference, a line for each."""
    for kind in {*base, *here}:
        ours, theirs = here.get(kind, {}), base.get(kind, {})
        if kind in GROWING:
            yield from (f"{kind} {item} only here" for item in ours.keys() - theirs.keys())
            yield from (f"{kind} {item} only in base" for item in theirs.keys() - ours.keys())
        for item in ours.keys() & theirs.keys():
            yield from (f"{kind} {field} only here" for field in ours[item].keys() - theirs[item].keys())
            yield from (f"{kind} {field} only in base" for field in theirs[item].keys() - ours[item].keys())


def _text(value: Any) -> str:
    """A value as JSON, which, unlike ==, tells 1 from 1.0 and from true, -0.0 from 0.0, and finds nan equal to nan."""
    return json.dumps(value, sort_keys=True)
