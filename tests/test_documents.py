"""What the small documents say of names, numbers and specs is what the code has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import main
import registry
from st_utils.kernels.common import eager
from zoo import create_model

ROOT = Path(__file__).parents[1]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_registrys_page_offers_what_the_catalogue_offers():
    page = text("registry/README.md")
    (spec,) = re.findall(r"^    (spikformer\(.*\))$", page, re.MULTILINE)
    assert create_model(spec, img_size=16, embed_dim=16, num_heads=2).spec.startswith("spikformer(")
    (offered,) = re.findall(r"an attention\n?\s*`([^`]+)`", page)
    assert tuple(offered.split(", ")) == registry.KINDS["attention"]


def test_the_kernels_page_names_what_is_there():
    page, folder = text("st_utils/kernels/README.md"), ROOT / "st_utils/kernels"
    rows = re.findall(r"^\| `(\w+)/` \|(.*)$", page, re.MULTILINE)
    there = {path.name for path in folder.iterdir() if (path / "__init__.py").is_file()}
    assert {name for name, _ in rows} == there and len(rows) == len(there) > 0
    files = [name for _, row in rows for name in re.findall(r"`(\w+/\w+\.\w+)`", row)]
    assert len(files) >= 8 and all((folder / name).is_file() for name in files), files
    assert "`watched` in `common/eager.py`" in page
    assert callable(eager.watched)


def test_the_kernels_page_has_the_crossover_of_the_code():
    code = text("st_utils/kernels/spike_conv/products.h")
    few = re.search(r"FEW = LANES == 8 \? (\S+) : (\S+);", code)
    assert f"{float(few[2]):.0f} of 16 bits set ({float(few[1]):.0f} with AVX2)" in text("st_utils/kernels/README.md")


@pytest.mark.parametrize("name", ["CHANGELOG.md", "st_utils/kernels/README.md", ".github/PULL_REQUEST_TEMPLATE.md"])
def test_options_that_a_document_names_exist(name, capsys):
    with pytest.raises(SystemExit):
        main.main(["--help"])
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    named = set(re.findall(r"main\.py[^`\n]*?(--[a-z][a-z-]+)|`(--[a-z][a-z-]+)", text(name)))
    assert named
    assert {option for pair in named for option in pair if option} - known == set()


# -- CONTRIBUTING.md -----------------------------------------------------------------------------------------
def contract_rows() -> dict[str, list[str]]:
    """The table of contracts: kind -> its other cells."""
    rows = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \| (.*) \|$", text("CONTRIBUTING.md"), re.MULTILINE)
    return {kind: cells for kind, *cells in rows}


def test_the_table_of_contracts_is_the_registrys():
    rows = contract_rows()
    assert list(rows) == list(registry.KINDS) == list(registry.CONTRACTS)
    for kind, (offered, contract, _) in rows.items():
        assert tuple(re.findall(r"`(\w+)`", offered)) == registry.KINDS[kind]
        assert contract == registry.CONTRACTS[kind]


def examples(name: str) -> list[tuple[str, str, str]]:
    """(kind, spec, code) of each python block of a document that registers a part.

    The spec is that of the heading above the block, `--mlp gated`, or else the name alone.
    """
    found = []
    for heading, code in re.findall(r"([^\n]*)\n\n```python\n(.*?)```", text(name), re.DOTALL):
        for kind, part in re.findall(r'^@register\.(\w+)\("(\w+)"', code, re.MULTILINE):
            told = re.search(rf"`--{kind} \"?({part}[^\"`]*)", heading)
            found.append((kind, told[1] if told else part, code))
    return found


CONTRIBUTED = examples("CONTRIBUTING.md")
QUICK = [
    "--step", "2", "--img-size", "8", "--epochs", "1", "--train-images", "8", "--test-images", "4", "--batch-size", "4",
    "--device", "cpu", "--model", "spikformer(embed_dim=16, depth=1, num_heads=2, mlp_ratio=1.0)",
]  # fmt: skip


def test_each_kind_has_one_example():
    assert sorted(kind for kind, _, _ in CONTRIBUTED) == sorted(registry.KINDS)


@pytest.mark.parametrize(
    ("kind", "spec", "code", "further"),
    [(*example, ()) for example in CONTRIBUTED + examples("README.md")]
    + [(*example, ("--tet",)) for example in CONTRIBUTED if example[0] == "model"],
)
def test_an_example_is_a_file_that_trains(kind, spec, code, further, tmp_path):
    """As a plug-in, through the command line: two steps and a test."""
    plugin, before = tmp_path / "mine.py", registry.parts.state()
    plugin.write_text(code)
    output = ["--plugin", str(plugin), "--output", str(tmp_path / "runs")]
    try:
        assert main.main([*QUICK, f"--{kind}", spec, *output, *further]) == 0
    finally:
        registry.parts.restore(before)
    summary = json.loads(next((tmp_path / "runs").glob("*/summary.json")).read_text())
    recorded = summary["full_spec" if kind not in ("model", "dataset") else "spec" if kind == "model" else "dataset"]
    assert spec.partition("(")[0] in recorded
    assert summary["epochs"] == 1


# -- paths ---------------------------------------------------------------------------------------------------
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "FINDINGS.md",
    ".github/PULL_REQUEST_TEMPLATE.md",
    "registry/README.md",
    "st_utils/kernels/README.md",
    *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")),
]
ROOMS = ("registry", "st_utils", "zoo", "benchmarks", "tests", "docs")
# what a document names that is the reader's own, or a run's: `my_parts.py`, a folder of images, a file in runs/
READERS = {"mine.py", "my_parts.py", "registry.py", "main.py", "train/", "val/", "runs/", "st_utils/attention/mine.py"}


def named_paths(name: str) -> set[str]:
    """The files and folders of this project that a document names: in links, in code, in lines of shell."""
    page = re.sub(r"```python.*?```", "", text(name), flags=re.DOTALL)
    page = re.sub(r"`st_utils/<kind>/`", "", page)
    links = {link for link in re.findall(r"\]\(([^)#]+)\)", page) if "://" not in link}
    rooted = set(re.findall(rf"(?<![\w./-])((?:{'|'.join(ROOMS)})/[\w./-]*[\w/])", page))
    bare = set(re.findall(r"`([\w./-]+(?:\.py|\.cpp|\.h|\.md|/))`", page))
    return (links | rooted | bare) - READERS


@pytest.mark.parametrize("name", DOCUMENTS)
def test_paths_that_a_document_names_exist(name):
    """A path is named from the project's folder, from the document's own, or by its last word within a room."""
    missing = []
    for path in named_paths(name):
        homes = [ROOT, (ROOT / name).parent]
        within = any(
            found for room in ROOMS if "/" not in path.rstrip("/") for found in (ROOT / room).rglob(path.rstrip("/"))
        )
        if not within and not any((home / path).exists() for home in homes):
            missing.append(path)
    assert missing == []


def test_the_documents_name_paths():
    counts = {name: len(named_paths(name)) for name in DOCUMENTS}
    assert counts["CONTRIBUTING.md"] > 15 and counts["README.md"] > 5, counts
