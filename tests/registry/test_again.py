"""Registering again, and what a part of no plug-in is made of: a notebook's cell run twice, an edited file."""

from __future__ import annotations

import importlib
import textwrap

import pytest

import registry
from registry import SpecError
from registry.plugins import PluginLoader
from tests.registry.cells import Notebook

MINE = """
    from registry import register

    @register.node("mine", aliases=("my_own",))
    class Mine:
        def __init__(self, k: int = 1):
            self.k = k
"""


@pytest.fixture(autouse=True)
def catalogue(monkeypatch):
    """The project's catalogue, which is as it was again afterwards. Its parts need be no nn.Module here."""
    before = registry.parts.state()
    monkeypatch.setattr(registry.parts, "checks", {})
    yield registry.parts
    registry.parts.restore(before)


@pytest.fixture
def notebook():
    opened = Notebook()
    yield opened
    opened.close()


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Write an importable module of the user's own, without bytecode, so that an edit within the second counts."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)

    def write(name: str, text: str):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        importlib.invalidate_caches()
        return path

    return write


def digest(spec: str = "mine") -> str:
    (found,) = registry.part_digests(("node", spec)).values()
    return found


# -- registering again -------------------------------------------------------------------------------------


def test_a_cell_that_is_run_twice_replaces_its_part_and_says_so(notebook, caplog):
    notebook.run(MINE)
    assert registry.create("node", "mine").full_spec == "mine(k=1)"
    assert caplog.messages == []
    notebook.run(MINE.replace("k: int = 1", "j: float = 2.5").replace("self.k = k", "self.j = j"))
    assert caplog.messages == ["node 'mine' is registered again: notebook_of_a_test.Mine replaces it"]
    assert registry.create("node", "my_own").full_spec == "mine(j=2.5)"
    assert isinstance(registry.create("node", "mine"), notebook.module.Mine)
    with pytest.raises(SpecError, match="has no argument 'k'"):
        registry.create("node", "mine(k=3)")


def test_another_alias_takes_the_place_of_the_one_before(notebook):
    notebook.run(MINE)
    notebook.run(MINE.replace("my_own", "newer"))
    assert registry.create("node", "newer").spec == "mine"
    with pytest.raises(SpecError, match="unknown node 'my_own'"):
        registry.create("node", "my_own")
    notebook.run(MINE.replace("mine", "other"))  # the alias is free again


def test_another_module_may_not_take_the_name(notebook):
    notebook.run(MINE)
    other = Notebook("other_notebook_of_a_test")
    try:
        with pytest.raises(SpecError, match="'mine' is already registered by notebook_of_a_test.Mine"):
            other.run(MINE)
    finally:
        other.close()
    assert isinstance(registry.create("node", "mine"), notebook.module.Mine)


@pytest.mark.parametrize("wrong", [
    MINE.replace("k: int = 1", "k: int = 1 / 0"),
    MINE.replace('"my_own"', '"my_own", "lif"'),
    MINE.replace('"my_own"', '"two words"'),
])  # fmt: skip
def test_a_failing_second_definition_leaves_the_first(notebook, wrong):
    notebook.run(MINE)
    first = notebook.module.Mine
    with pytest.raises((ZeroDivisionError, SpecError)):
        notebook.run(wrong)
    assert type(registry.create("node", "my_own(k=4)")) is first
    assert registry.create("node", "lif").part_kind == "node"


def test_a_reloaded_module(put, caplog):
    put("again_reloaded.py", MINE)
    module = importlib.import_module("again_reloaded")
    put("again_reloaded.py", MINE.replace("k: int = 1", "k: int = 22"))
    importlib.reload(module)
    assert registry.create("node", "mine").k == 22
    assert caplog.messages == ["node 'mine' is registered again: again_reloaded.Mine replaces it"]


# -- the code of a part ------------------------------------------------------------------------------------

CELLS = {
    "helpers": "SCALE, UNUSED = 0.5, 1\n\ndef halved(x):\n    return x * SCALE\n",
    "base": "class Base:\n    def forward(self, x):\n        return halved(x)\n",
    "part": """
        from registry import register

        @register.node("mine")
        class Mine(Base):
            '''Only a docstring: no method says which cell this is.'''
    """,
    "other": "x = 1\ncount = 2\nclass Unrelated:\n    pass\n",
}


@pytest.mark.parametrize(("cell", "old", "new", "counts"), [
    ("part", "Only a docstring", "Another docstring", True),
    ("base", "return halved(x)", "return halved(x) + 1", True),
    ("helpers", "return x * SCALE", "return x / SCALE", True),
    ("helpers", "SCALE, UNUSED = 0.5, 1", "SCALE, UNUSED = 0.25, 1", True),
    ("helpers", "SCALE, UNUSED = 0.5, 1", "SCALE, UNUSED = 0.5, 2", False),
    ("other", "x = 1", "x = 2", False),
    ("other", "pass", "y = 3", False),
])  # fmt: skip
def test_what_a_part_refers_to_counts(notebook, cell, old, new, counts):
    """`x` is an argument in `halved`, and a variable of the notebook."""
    for text in CELLS.values():
        notebook.run(text)
    before = digest()
    notebook.run(CELLS[cell])
    assert digest() == before
    assert old in CELLS[cell]
    notebook.run(CELLS[cell].replace(old, new))
    if cell == "base":  # a class keeps the base that it was made with
        assert digest() == before
        notebook.run(CELLS["part"])
    assert (digest() != before) == counts


def test_a_function_and_a_lambda_are_parts_too(notebook):
    text = "from registry import register\n@register.node('mine')\ndef mine(k: int = 1):\n    return shift(k)\n"
    notebook.run("shift = lambda k: [k + 1]\n")
    notebook.run(text)
    before = digest()
    notebook.run("shift = lambda k: [k + 2]\n")
    assert digest() != before
    notebook.run(text.replace("shift(k)", "[shift(k)]"))
    assert len({before, digest()}) == 2


def test_an_edited_file_counts_when_it_is_loaded_and_not_before(put):
    path = put("again_imported.py", "import again_helper\n" + textwrap.dedent(MINE) + "        again_helper.f()\n")
    helper = put("again_helper.py", "def f():\n    return 1\n")
    module = importlib.import_module("again_imported")
    before = digest()
    path.write_text(path.read_text().replace("self.k = k", "self.k = 2 * k"))
    assert digest() == before, "this process still runs what it imported"
    importlib.reload(module)
    edited = digest()
    assert edited != before
    helper.write_text(helper.read_text().replace("1", "2"))
    assert digest() != edited


def test_a_nested_part_counts_and_the_project_s_do_not(notebook):
    notebook.run(MINE)
    full = registry.full("attention", "ssa(dim=8, node=mine)")
    assert list(registry.part_digests(("attention", full))) == ["node mine"]
    assert registry.part_digests(("attention", registry.full("attention", "ssa(dim=8)"))) == {}


def test_code_without_source_is_said(notebook, caplog):
    exec(compile(textwrap.dedent(MINE), "<nowhere>", "exec"), vars(notebook.module))
    digest()
    assert caplog.messages == ["node mine: no source of Mine can be read: an edit there goes unnoticed"]


# -- plug-ins ----------------------------------------------------------------------------------------------


def test_an_edited_plug_in_is_loaded_again(put, caplog):
    loader = PluginLoader(registry.parts)
    path = put("again_plugin.py", MINE)
    loader.load(path)
    before = loader.digests("mine")
    assert loader.part_digests(("node", "mine")) == {}, "it is the plug-in's"
    path.write_text(path.read_text().replace("self.k = k", "self.k = 2 * k").replace("my_own", "newer"))
    assert loader.digests("mine") == before
    assert "was edited after it was loaded" in caplog.messages[-1]
    loader.load(path)
    assert caplog.messages[-1] == f"plug-in {path} was edited: it is loaded again"
    assert registry.create("node", "newer(k=3)").k == 6
    assert loader.digests("mine") != before
    with pytest.raises(SpecError, match="unknown node 'my_own'"):
        registry.create("node", "my_own")
    path.write_text(path.read_text() + "\n1 / 0\n")
    with pytest.raises(SpecError, match="ZeroDivisionError"):
        loader.load(path)
    assert registry.create("node", "newer(k=3)").k == 6


def test_an_edited_module_of_a_plug_in_is_imported_again(put):
    loader = PluginLoader(registry.parts)
    helper = put("again_plugin_helper.py", "K = 10\n")
    text = "from again_plugin_helper import K\n" + textwrap.dedent(MINE).replace("self.k = k", "self.k = k * K")
    path = put("again_plugin_2.py", text)
    loader.load(path)
    assert registry.create("node", "mine").k == 10
    helper.write_text("K = 200\n")
    loader.load(path)
    assert registry.create("node", "mine").k == 200
