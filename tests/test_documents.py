"""What the small documents say of names, numbers and specs is what the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import registry
from st_utils.kernels.common import eager
from st_utils.kernels.spike_conv import op as sparse_conv
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
    assert "more than about a third of the input" in page
    assert abs(sparse_conv.DENSEST[0] - 1 / 3) < 0.02


def test_the_ledger_has_the_densities_of_the_code():
    forward, weight = sparse_conv.DENSEST
    assert f"from {forward} (forward) and {weight} (weight)" in " ".join(text("FINDINGS.md").split())


@pytest.mark.parametrize("name", ["CHANGELOG.md", "st_utils/kernels/README.md", ".github/PULL_REQUEST_TEMPLATE.md"])
def test_options_that_a_document_names_exist(name, capsys):
    import main

    with pytest.raises(SystemExit):
        main.main(["--help"])
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    named = set(re.findall(r"main\.py[^`\n]*?(--[a-z][a-z-]+)|`(--[a-z][a-z-]+)", text(name)))
    assert named
    assert {option for pair in named for option in pair if option} - known == set()
