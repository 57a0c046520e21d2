"""BibTeX for a model and its registered parts, from the `source` of each part.

    from zoo import cite

    cite("sdt(attention=statten)").splitlines()[0]  # '% model sdt, embedding ms_sps, mlp mlp'

`citations.yml` has the papers. A source that it lacks becomes a `@misc` with the words of the source, without a title.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import yaml

import registry
from registry import Spec

ARXIV = re.compile(r"arxiv[: ]\s*(\d{4}\.\d{4,5})", re.IGNORECASE)
DOI = re.compile(r"(?<![\w.])10\.\d{4,9}/[^\s;,)]+")
YEAR = re.compile(r"(?<!\w)(1[89]|20)\d\d(?!\w)")
SURNAME = r"[A-Z][^\W\d_]*(?:['’-][^\W\d_]+)*"
# "Zhou et al. 2023", "Xiao, Rasul and Vollgraf": nothing else is taken for authors, such as a venue before its year
NAMES = re.compile(rf"({SURNAME}) et al\.|({SURNAME}(?:, {SURNAME})* (?:&|and) {SURNAME})(?![\w'’-])")
SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
AS_THEY_ARE = ("author", "url", "doi", "eprint", "archivePrefix")  # not LaTeX's text, or braces that mean something


def cite(model: str | Spec, *further: tuple[str, str | Spec]) -> str:
    """BibTeX of a model, its parts, and further (kind, spec) pairs such as ("dataset", "mnist").

    Each paper is one entry, below a comment that names its parts. Parts without a source are listed at the end.

    Raises SpecError if a spec names no registered part.
    """
    entries: dict[tuple, tuple[dict[str, Any], list[str]]] = {}
    unknown = []
    for kind, spec in (("model", model), *further):
        for part in registry.parts_of(kind, registry.full(kind, spec)):
            label = f"{part.kind} {part.name}"
            if not part.source and label not in unknown:
                unknown.append(label)
            for fields in references(part.source, label):
                labels = entries.setdefault(tuple(fields.items()), (fields, []))[1]
                if label not in labels:
                    labels.append(label)
    keys = unique([fields["key"] for fields, _ in entries.values()])
    texts = [
        f"% {', '.join(labels)}\n{bibtex({**fields, 'key': key})}"
        for (fields, labels), key in zip(entries.values(), keys, strict=True)
    ]
    if unknown:
        texts.append(f"% no source is named by: {', '.join(unknown)}\n")
    return "\n".join(texts)


def references(source: str, label: str) -> list[dict[str, Any]]:
    """Find the publications in a source: for each a dict of `key`, `type` and BibTeX fields; none in an empty source.

    Semicolons separate the source's clauses. A clause with an arXiv id or words of `citations.yml` gives that paper; a
    clause with another arXiv id, a year or a DOI gives a `@misc`. Other clauses, such as a repository's name, give
    nothing, unless the whole source gives nothing: then it becomes one `@misc`.
    """
    found: list[dict[str, Any]] = []
    clauses = [clause.strip() for clause in source.split(";") if clause.strip()]
    for clause in clauses:
        ids = ARXIV.findall(clause)
        known = {where: row for word, (where, row) in table().items() if word in ids or _has(clause, word)}
        found += known.values()
        found += [_misc(clause, label, arxiv) for arxiv in ids if arxiv not in known]
        if not known and not ids and (YEAR.search(clause) or DOI.search(clause)):
            found.append(_misc(clause, label))
    if clauses and not found:
        found.append(_misc(source, label))
    return list({tuple(fields.items()): fields for fields in found}.values())


@functools.cache
def table() -> dict[str, tuple[str, dict[str, Any]]]:
    """Read citations.yml: arXiv id or words -> (name of the row, fields). Words after "=" must be the whole clause."""
    rows = yaml.safe_load(Path(__file__).with_name("citations.yml").read_text(encoding="utf-8"))
    found = {}
    for name, row in rows.items():
        words = row.pop("words", [])
        if ARXIV.fullmatch(f"arXiv:{name}"):
            row |= {"eprint": name, "archivePrefix": "arXiv"}
        found |= dict.fromkeys([name, *words], (name, row))
    return found


def _has(clause: str, word: str) -> bool:
    if word.startswith("="):
        return clause == word[1:]
    return re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w-])", clause) is not None


def _misc(clause: str, label: str, arxiv: str = "") -> dict[str, Any]:
    """A `@misc` from the words themselves: surnames, year, DOI, arXiv id, and the words."""
    fields = {"key": re.sub(r"\W+", "_", label), "type": "misc"}
    if names := NAMES.match(clause):
        fields["author"] = f"{names[1]} and others" if names[1] else re.sub(r", | & ", " and ", names[2])
    if year := YEAR.search(DOI.sub("", ARXIV.sub("", clause))):
        fields["year"] = year[0]
    if doi := DOI.search(clause):
        fields["doi"] = doi[0].rstrip(".")
    if arxiv:
        fields |= {"eprint": arxiv, "archivePrefix": "arXiv"}
    return {**fields, "howpublished": clause}


def unique(keys: list[str]) -> list[str]:
    """Make the keys unique: a key that occurs again gets a number."""
    return [key if key not in keys[:i] else f"{key}_{keys[: i + 1].count(key)}" for i, key in enumerate(keys)]


def bibtex(fields: dict[str, Any]) -> str:
    """Format one entry."""
    fields = dict(fields)
    head = f"@{fields.pop('type')}{{{fields.pop('key')},\n"
    lines = []
    for name, value in fields.items():
        text = str(value) if name in AS_THEY_ARE else _latex(str(value))
        lines.append(f"  {name} = {{{f'{{{text}}}' if name == 'title' else text}}},\n")
    return f"{head}{''.join(lines)}}}\n"


def _latex(text: str) -> str:
    return "".join(SPECIAL.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)
