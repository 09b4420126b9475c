"""Each sentence of the specification names a function and a test that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from pydoc import locate

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/specification.md").read_text(encoding="utf-8")
ROWS = re.findall(
    r"^\| (.+?) \| `(lis2_lightning\.[\w.]+)` \| `(\S+)::(\w+)` \|$", PAGE, re.MULTILINE
)


def test_every_row_names_where_it_is_done_and_shown() -> None:
    assert len(ROWS) == PAGE.count("\n| ") - 2  # the head and the line below it


def test_every_function_of_the_page_exists() -> None:
    assert [name for _, name, _, _ in ROWS if locate(name) is None] == []


def test_every_test_of_the_page_exists() -> None:
    missing = []
    for _, _, path, name in ROWS:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        if name not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}:
            missing.append(f"{path}::{name}")
    assert missing == []
