"""The example in the docstring of each module of zoo/ and st_utils/braincog/ runs, and gives what it says."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.examples import indented, run

ROOT = Path(__file__).parents[2]
ROOMS = ("zoo", "zoo/authors", "st_utils/braincog")
FILES = [path for room in ROOMS for path in sorted((ROOT / room).glob("*.py"))]
EXAMPLES = {
    path.relative_to(ROOT).as_posix(): code
    for path in FILES
    if (code := indented(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""))
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs(name):
    run(EXAMPLES[name])


def test_every_model_has_an_example():
    models = {f"zoo/{path.name}" for path in (ROOT / "zoo").glob("*.py") if "@register.model(" in path.read_text()}
    assert len(models) >= 17
    assert models - EXAMPLES.keys() == set()


def test_files_that_a_docstring_names_exist():
    texts = [ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "" for path in FILES]
    named = {found for text in texts for found in re.findall(r"(?:[\w.-]+/)+[\w-]+\.(?:py|md|yml)", text)}
    named -= {"cifar10/model.py", "spikingjelly/activation_based/model/sew_resnet.py"}  # in authors' repositories
    assert len(named) >= 15
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_the_room_of_authors_code_has_no_model_and_imports_none():
    models = {path.stem for path in (ROOT / "zoo").glob("*.py") if "@register.model(" in path.read_text()}
    for path in (ROOT / "zoo" / "authors").glob("*.py"):
        imported = set(re.findall(r"^from zoo\.(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
        assert "register." not in path.read_text(encoding="utf-8")
        assert imported & models == set(), path.name


def test_a_wrong_value_fails():
    assert run("1 + 1  # 2") == 1
    with pytest.raises(AssertionError, match="2, the text says 3"):
        run("1 + 1  # 3")
