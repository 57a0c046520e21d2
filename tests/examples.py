"""Run the code of a document: a docstring's indented block, or a Markdown page's Python blocks.

    run("1 + 1  # 2")  # passes; "# 3" would not

An expression with a comment is compared with it: the comment is the value's `repr`, or how it begins before "...".
"""

from __future__ import annotations

import ast
import re
import textwrap
from typing import Any


def run(code: str, names: dict[str, Any] | None = None) -> int:
    """Execute the code in the namespace `names`; returns how many values were compared."""
    names = {} if names is None else names
    lines = code.splitlines()
    compared = 0
    for node in ast.parse(code).body:
        if not isinstance(node, ast.Expr):
            exec(compile(ast.Module([node], []), "<example>", "exec"), names)
            continue
        value = eval(compile(ast.Expression(node.value), "<example>", "eval"), names)
        behind = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
        if expected := re.fullmatch(r"\s*# (.+)", behind):
            shown, dots, _ = expected[1].partition("...")
            agrees = repr(value).startswith(shown) if dots else repr(value) == shown
            assert agrees, f"{value!r}, the text says {shown}"
            compared += 1
    return compared


def indented(docstring: str) -> str:
    """The first indented block of a docstring; empty when it has none."""
    lines = textwrap.dedent(docstring.split("\n", 1)[-1]).splitlines() if "\n" in docstring else []
    block: list[str] = []
    for line in lines:
        if line.startswith("    ") or (block and not line.strip()):
            block.append(line)
        elif block:
            break
    return textwrap.dedent("\n".join(block)).strip()


def blocks(page: str) -> list[str]:
    """The Python blocks of a Markdown page."""
    return re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
