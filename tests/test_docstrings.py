"""Docstrings: their examples run and give what they say, the arguments that they describe exist.

An example of a module is a block of code in its docstring; a line `Example:` may stand before it. One that begins with
an import runs by itself; another one runs among the module's own names, as doctest does it, with `torch`, `nn`,
`create` and `names`. Indented text whose names are none of these is a formula or a table. A value is shown behind a
statement or on the next line: `# -> text` is its repr, in which `...` stands for any text, `# 'text'` or another
literal is the value itself. Other comments claim nothing. A plug-in file `my_parts.py` lies where examples run.
"""

from __future__ import annotations

import ast
import builtins
import doctest
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import registry
import zoo  # noqa: F401  (registers the parts)
from registry import KINDS, create, entry, names

ROOT = Path(__file__).parents[1]
PARTS = ("attention", "embedding", "mlp", "encoder", "backbone", "layer", "node")
FROM_ZOO = ("attention", "embedding", "mlp", "encoder")  # the kinds that are registered by `import zoo` alone
ROOMS = (*(f"st_utils/{room}" for room in PARTS), "zoo", "registry")
HELPERS = {"torch": torch, "nn": nn, "create": create, "names": names}
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
IMPORT = re.compile(r"\s*(import \w|from [\w.]+ import )")
PLUGIN = """
from torch import nn
from registry import register

@register.attention("mine")
class Mine(nn.Identity):
    def __init__(self, dim: int, k: int = 1):
        super().__init__()
"""


class Shown(NamedTuple):
    """A statement of an example, the value that a comment shows, and the value that it has."""

    statement: str
    shown: str
    value: Any


def module_of(path: Path) -> Any:
    return importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=False) or ""


def code_blocks(doc: str) -> list[str]:
    """Indented code, and code that begins with an import, with the paragraphs after it as long as they are code."""
    found: list[list[str]] = []
    inside = False
    for paragraph in re.split(r"\n\s*\n", doc):
        block = paragraph.removeprefix("Example:\n").rstrip()
        imports, indented = bool(IMPORT.match(block)), block.startswith("    ")
        if inside and not imports and parsed(block) and (indented or not found[-1][0].startswith("    ")):
            found[-1].append(block)
        elif inside := bool(parsed(block)) and (imports or indented):
            found.append([block])
    return [textwrap.dedent("\n\n".join(blocks)) for blocks in found]


def parsed(text: str) -> ast.Module | None:
    try:
        return ast.parse(textwrap.dedent(text))
    except SyntaxError:
        return None


def free_names(code: str) -> set[str]:
    """The names that a block of code uses and does not bind."""
    nodes = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    bound = {node.id for node in nodes if not isinstance(node.ctx, ast.Load)}
    return {node.id for node in nodes} - bound - set(vars(builtins))


def examples(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Each example of a module, with the names among which it runs."""
    found = []
    for code in code_blocks(docstring(path)):
        if IMPORT.match(code):
            found.append((code, {"__name__": "example"}))
        elif any(isinstance(node, ast.Call) for node in ast.walk(ast.parse(code))):
            known = HELPERS | vars(module_of(path))
            if free_names(code) <= known.keys():
                found.append((code, known | {"__name__": "example"}))
    return found


def modules() -> list[Path]:
    """The files of the rooms that have an example."""
    return [path for room in ROOMS for path in sorted((ROOT / room).glob("*.py")) if examples(path)]


def shown_values(code: str, known: dict[str, Any]) -> Iterator[Shown]:
    """Run an example; yield each expression that has a comment behind it or below it."""
    lines = code.split("\n")
    for statement in ast.parse(code).body:
        text = ast.unparse(statement)
        if not isinstance(statement, ast.Expr):
            exec(text, known)
            continue
        value = eval(text, known)
        behind, below = lines[statement.end_lineno - 1][statement.end_col_offset :], lines[statement.end_lineno :][:1]
        if comment := next(filter(None, (re.fullmatch(r"\s*# (.+)", line) for line in (behind, *below))), None):
            yield Shown(text, comment[1], value)


def agrees(shown: str, value: Any) -> bool:
    if shown.startswith("-> "):
        return doctest.OutputChecker().check_output(f"{shown[3:]}\n", f"{value!r}\n", FLAGS)
    try:
        return isinstance(value, torch.Tensor) or ast.literal_eval(shown) == value
    except (SyntaxError, ValueError):
        return True


def registered_part(code: str) -> str | None:
    """The first string that is a spec of a part or model; nodes are registered by whatever needs them."""
    parts = {name for kind in ("model", *FROM_ZOO) for name in names(kind, families=False)}
    texts = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    return next((t for t in texts if isinstance(t, str) and re.split(r"\W", t, maxsplit=1)[0] in parts), None)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_run(path, tmp_path, monkeypatch):
    (tmp_path / "my_parts.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    before = registry.parts.state()
    try:
        for code, known in examples(path):
            if IMPORT.match(code) and (part := registered_part(code)):
                assert "import zoo" in code or "from zoo" in code, f"without zoo nothing registers {part!r}"
            for statement, shown, value in shown_values(code, known):
                assert agrees(shown, value), f"{statement} is {value!r}, not {shown}"
    finally:
        registry.parts.restore(before)


@pytest.mark.parametrize("room", PARTS[:-1])
def test_every_file_of_the_parts_has_an_example(room):
    files = set((ROOT / "st_utils" / room).glob("*.py"))
    assert len(files) >= 3
    assert {path.name for path in files - set(modules())} - IN_TIME == set()


# Files of other subjects that get theirs in time.
IN_TIME = {"arguments.py", "class_defaults.py", "fold_norms.py", "norm_then_fire.py", "over_time.py"}


@pytest.mark.parametrize(
    ("shown", "right"), [("-> 3", False), ("-> 2", True), ("3", False), ("2", True), ("any", True)]
)
def test_a_wrong_value_is_noticed(shown, right):
    doc = f"First line.\n\nExample:\n    import math\n\n    math.gcd(4, 6)  # {shown}\n\nText.\n\n    h = v + x(t)\n"
    first, second = code_blocks(doc)
    assert free_names(second) == {"v", "x", "t"}
    ((statement, found, value),) = shown_values(first, {})
    assert (statement, found, value) == ("math.gcd(4, 6)", shown, 2)
    assert agrees(found, value) is right


def described() -> list[tuple[str, Any]]:
    """The public classes and functions of the parts' rooms by name."""
    found = {}
    for room in PARTS:
        for path in sorted((ROOT / "st_utils" / room).glob("*.py")):
            module = module_of(path)
            for name, thing in vars(module).items():
                own = getattr(thing, "__module__", None) == module.__name__
                if own and not name.startswith("_") and (inspect.isclass(thing) or inspect.isfunction(thing)):
                    found[f"{module.__name__}.{name}"] = thing
    return sorted(found.items())


def arguments_in(doc: str) -> list[str]:
    """The names that the section `Args:` of a docstring describes."""
    section = re.search(r"^Args:\n((?: {4}.*\n?|\n)+)", doc, re.MULTILINE)
    lines = re.findall(r"^ {4}(\w+(?:, \w+)*): ", section[1], re.MULTILINE) if section else []
    return [name for line in lines for name in line.split(", ")]


def test_the_arguments_that_a_docstring_describes_exist():
    seen = 0
    for where, thing in described():
        in_doc = arguments_in(inspect.cleandoc(thing.__doc__ or ""))
        seen += len(in_doc)
        unknown = set(in_doc) - set(inspect.signature(thing).parameters) if in_doc else None
        assert not unknown, f"{where} has no argument {unknown}"
    assert seen > 100


@pytest.mark.parametrize("kind", FROM_ZOO)
def test_a_kinds_page_lists_what_it_is_offered(kind):
    page = inspect.getdoc(importlib.import_module(f"st_utils.{kind}"))
    (table,) = re.findall(r"\(`registry\.KINDS`\):\n\n((?: {4}.+\n?)+)", page)
    assert tuple(re.findall(r"^ {4}(\w+) {2,}\S", table, re.MULTILINE)) == KINDS[kind]


@pytest.mark.parametrize("kind", FROM_ZOO)
def test_the_listing_shows_a_whole_sentence(kind):
    found = [entry(kind, name) for name in names(kind) if entry(kind, name).factory.__module__.startswith("st_utils.")]
    assert len(found) >= 3
    assert [part.name for part in found if not part.doc.endswith(".")] == []
