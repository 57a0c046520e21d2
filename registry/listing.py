"""What --list shows of a catalogue.

print(registry.listing("attention"))    # attention (20), and a line for each: name, what it is, where it is from
"""

from __future__ import annotations

from collections.abc import Iterator

from registry.catalogue import Catalogue
from registry.entries import Entry, Family
from registry.kinds import KINDS
from registry.spec import Spec, SpecError


def listing(catalogue: Catalogue, asked: str = "") -> str:
    """The registered parts of a kind, of all kinds, or those whose names match a pattern such as `braincog.*`.

    A line each: name, what it is, where it is from. The parts of another library are one line, below this project's,
    unless the pattern asks for them.

    Raises:
        SpecError: no such kind, or no name that is like the pattern.
    """
    pattern = asked if set(asked) & set("*?[") else ""
    text = ""
    for kind in KINDS if pattern or not asked else [asked]:
        names = catalogue.names(kind, pattern or "*", families=bool(pattern))
        lines = {name: _described(catalogue.entry(kind, name)) for name in names}
        if not pattern:
            lines |= {f"{family.prefix}*": _folded(catalogue, kind, family) for family in catalogue.families[kind]}
        if lines or not pattern:
            width = max(map(len, lines), default=0)
            text += f"{kind} ({len(names)})\n"
            text += "".join(f"  {name:<{width}}  {line}\n" for name, line in lines.items())
    if not text:
        raise SpecError(f"no registered name is like {asked!r}; --list alone shows all of them")
    return text


def _described(entry: Entry) -> str:
    return entry.doc + (f"  [{entry.source}]" if entry.source else "")


def _folded(catalogue: Catalogue, kind: str, family: Family) -> str:
    pattern = f"{family.prefix}*"
    return f"{len(catalogue.names(kind, pattern))} {kind}s of {family.source}: --list '{pattern}'"


def parts_of(catalogue: Catalogue, kind: str, full: Spec) -> Iterator[Entry]:
    """The entries of a part and of all parts within it; `full` is its spec with every argument."""
    entry = catalogue.entry(kind, full)
    yield entry
    for name, value in full.args.items():
        nested = entry.param(name).nested
        for spec in value if isinstance(value, tuple) else (value,):
            if nested and isinstance(spec, Spec):
                yield from parts_of(catalogue, nested, spec)
