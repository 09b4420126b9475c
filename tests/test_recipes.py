"""The recipes of CONTRIBUTING.md, followed to the letter in a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("\n## Recipes\n")[2]
RECIPES: dict[str, str] = dict(
    re.findall(r"^### (An? \w+)\n(.*?)(?=^###? )", PAGE, re.DOTALL | re.MULTILINE)
)
COPIED = (
    *("pyproject.toml", "tests/conftest.py", "tests/config/test_reference.py"),
    *("docs/reference.py", "docs/configuration.md", "docs/api.md"),
)


def new_files(text: str) -> dict[str, str]:
    """The files that a recipe adds; the first line of each block is its path."""
    blocks = re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return dict(blocks)


def call(folder: Path, *words: str, text: str = "") -> str:
    """Run a command in the copy, whose package comes before the installed one."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        words, check=False, cwd=folder, env=environment, input=text, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The tests that pass after all recipes have been followed, as pytest lists them."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(
        ROOT / "lis2_lightning",
        copy / "lis2_lightning",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    files = {name: (ROOT / name).read_text(encoding="utf-8") for name in COPIED}
    for text in RECIPES.values():
        files |= new_files(text)
    for name, text in files.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(text, encoding="utf-8")
    for text in RECIPES.values():
        (diff,) = re.findall(r"^```diff\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        call(copy, "git", "apply", "-", text=diff)
    call(copy, sys.executable, "docs/reference.py")
    tests = [name for name in files if "/test_" in name]
    output = call(copy, sys.executable, "-m", "pytest", "-n", "0", "-rA", *tests)
    return re.findall(r"^PASSED (\S+?)::", output, re.MULTILINE)


def test_there_are_four_recipes() -> None:
    assert list(RECIPES) == ["A metric", "An augmentation", "A tracker", "A raster"]


@pytest.mark.slow
@pytest.mark.xdist_group("recipes")  # the copy is made once
@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_leads_to_passing_tests(title: str, passed: list[str]) -> None:
    (test,) = [name for name in new_files(RECIPES[title]) if name.startswith("tests/")]
    assert test in passed


@pytest.mark.slow
@pytest.mark.xdist_group("recipes")  # the copy is made once
def test_the_page_of_keys_names_what_the_recipes_add(passed: list[str]) -> None:
    assert "tests/config/test_reference.py" in passed
