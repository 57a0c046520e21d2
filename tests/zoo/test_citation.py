"""Every registered part can be cited, and the table's papers are those that the parts name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import main
import registry
import zoo
from registry import KINDS, names
from zoo.citation import ARXIV, bibtex, references, table

PARTS = [
    (kind, name)
    for kind in KINDS
    for name in names(kind, families=False)
    if registry.entry(kind, name).factory.__module__.split(".")[0] in ("st_utils", "zoo")  # not those of tests
]
FAMILIES = [("model", "braincog.resnet18"), ("node", "braincog.PLIFNode")]


def entries(text: str) -> dict[str, dict[str, str]]:
    """BibTeX as a reader of it would take it apart: keys -> fields. Fails on braces that do not balance."""
    found: dict[str, dict[str, str]] = {}
    while match := re.search(r"^@(\w+)\{([\w-]+),\n", text, re.MULTILINE):
        depth, end = 1, match.end()
        while depth:
            before = text[end - 1]
            depth += 0 if before == "\\" else {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        body, text = text[match.end() : end - 1], text[end:]
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},$", body, re.MULTILINE))
        assert len(fields) == len(body.splitlines()), body
        assert match[2] not in found, f"{match[2]} twice"
        found[match[2]] = {"type": match[1], **fields}
    assert "@" not in text
    return found


@pytest.mark.parametrize(("kind", "name"), PARTS + FAMILIES)
def test_every_part_is_citable(kind, name):
    part = registry.entry(kind, name)
    assert part.source, f"{kind} {name} names no source"
    found = references(part.source, f"{kind} {name}")
    assert found
    text = "\n".join(bibtex({**fields, "key": f"k{i}"}) for i, fields in enumerate(found))
    parsed = entries(text)
    assert len(parsed) == len(found)
    for fields in parsed.values():
        assert fields.get("title") or fields["howpublished"]
    cited = {fields.get("eprint") for fields in found}
    assert set(ARXIV.findall(part.source)) <= cited, "an arXiv id of the source is not cited"
    made_up = [fields for fields in found if "title" not in fields]
    assert not made_up or part.source == "the user's own", f"{made_up}: give zoo/citations.yml the paper"


def test_the_tables_first_authors_and_years_are_the_sources():
    """An id with another paper behind it shows here: surname and year stand beside the ids in the sources."""
    compared = set()
    for kind, name in PARTS:
        for clause in registry.entry(kind, name).source.split(";"):
            surname = re.search(r"([A-Z][\w-]+)(?: et al\.| & [A-Z]| and [A-Z])", clause)
            (arxiv,) = ARXIV.findall(clause) or [None]
            if surname and arxiv:
                fields = table()[arxiv][1]
                assert f"{surname[1]}," in fields["author"], (clause, fields)
                years = re.findall(r"\b(?:19|20)\d\d\b(?!\.)", clause[surname.end() :])
                assert years in ([], [str(fields["year"])]), (clause, fields)
                compared.add(arxiv)
    assert len(compared) >= 40


def test_the_table_has_no_paper_that_nothing_names():
    sources = ";".join(registry.entry(kind, name).source for kind, name in PARTS + FAMILIES)
    named = {fields["key"] for source in sources.split(";") for fields in references(source.strip(), "part")}
    rows = {row["key"] for _, row in table().values()}
    assert rows - named == set()
    assert len(rows) == len({name for name, _ in table().values()})  # no key twice


def test_a_model_is_cited_with_its_parts_each_paper_once():
    found = entries(zoo.cite("sdt(attention=statten, node=plif(surrogate=atan))", ("dataset", "mnist")))
    assert {fields.get("eprint") for fields in found.values()} >= {"2307.01694", "2409.19764", "2007.05785"}
    assert found["lecun1998gradient"]["volume"] == "86"
    eprints = [fields["eprint"] for fields in found.values() if "eprint" in fields]
    assert len(eprints) == len(set(eprints))
    text = zoo.cite("sdt(attention=statten, node=plif(surrogate=atan))")
    assert "% node plif, surrogate atan\n@inproceedings{fang2021plif," in text


def test_the_same_part_of_other_words_is_not_cited():
    assert "2409.19764" not in zoo.cite("spikformer")
    assert "2409.19764" in zoo.cite("spikformer(attention=statten)")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "Smith et al. 2026 (FooNet), arXiv:2601.00001; smith/foonet",
            [{"author": "Smith and others", "year": "2026", "eprint": "2601.00001"}],
        ),
        ("Müller & O'Neil 2025, J. Foo 3", [{"author": "Müller and O'Neil", "year": "2025"}]),
        ("Xiao, Rasul and Vollgraf, Foo 2024", [{"author": "Xiao and Rasul and Vollgraf", "year": "2024"}]),
        ("Foo paper; foo2096/bar", [{}]),  # no year in a repository's name
        ("CVPR 2024 workshop", [{"year": "2024"}]),  # a venue is nobody's name
        ("Foo, doi 10.1234/ab.2020-3.", [{"doi": "10.1234/ab.2020-3"}]),
        ("where it was published", [{}]),
        ("motor control by hand", [{}]),  # not the zoo's own `control`
        ("arXiv:2601.00001; arXiv:2601.00002", [{"eprint": "2601.00001"}, {"eprint": "2601.00002"}]),
        ("", []),
    ],
)
def test_of_an_unknown_source_only_what_it_says(source, expected):
    found = references(source, "attention mine")
    facts = [{k: v for k, v in f.items() if k not in ("key", "type", "howpublished", "archivePrefix")} for f in found]
    assert facts == expected
    assert all(fields["howpublished"] in source for fields in found)


def test_a_plugins_part_is_cited_with_its_words_made_safe_for_latex(tmp_path, capsys):
    plugin = tmp_path / "cited_source.py"
    plugin.write_text(
        "from torch import nn\nfrom registry import register\n"
        "@register.attention('to_cite', source='50% of A_B & C{D}~^ #1, unpublished $')\n"
        "class ToCite(nn.Identity):\n    def __init__(self, dim: int):\n        super().__init__()\n"
        "@register.attention('nameless')\n"
        "class Nameless(nn.Identity):\n    def __init__(self, dim: int):\n        super().__init__()\n"
    )
    state = registry.parts.state()
    try:
        assert main.main(["--plugin", str(plugin), "--cite", "sdt", "--attention", "to_cite"]) == 0
        found = entries(capsys.readouterr().out)
        words = found["attention_to_cite"]["howpublished"]
        assert words == r"50\% of A\_B \& C\{D\}\textasciitilde{}\textasciicircum{} \#1, unpublished \$"
        assert main.main(["--cite", "sdt(attention=nameless)"]) == 0
        assert capsys.readouterr().out.endswith("\n% no source is named by: attention nameless\n")
    finally:
        registry.parts.restore(state)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--cite", "spikformr"], "unknown model 'spikformr'; did you mean 'spikformer'?"),
        (["--cite", "sdt(attention=stattn)"], "unknown attention 'stattn'; did you mean 'statten'?"),
        (["--cite", "sdt("], "error: "),
        (["--cite", "sdt", "--dataset", "mnits"], "unknown dataset 'mnits'; did you mean 'mnist'?"),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, reason, capsys):
    assert main.main(arguments) == 2
    output = capsys.readouterr()
    assert reason in output.err
    assert output.out == ""
    assert "Traceback" not in output.err


def test_the_projects_own_citation_is_the_same_everywhere():
    file = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text())
    ours = table()["this project"][1]
    assert file["title"] == ours["title"]
    assert file["version"] == zoo.__version__
    assert [author["name"] for author in file["authors"]] == [ours["author"].strip("{}")]
    assert str(file["date-released"])[:4] == str(ours["year"])
