"""The public names, what importing them costs, and the names of the modules."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import lis2_lightning

HEAVY = (
    "torch",
    "lightning",
    "wandb",
    "mlflow",
    "matplotlib",
    "astropy",
    "monai",
    "optuna",
    "tifffile",
    "zarr",
)


PACKAGE = Path(lis2_lightning.__file__).parent
ROOMS = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))
KNOWN_PAIRS: set[str] = set()
LONG_DOCSTRINGS: set[str] = set()


def modules_after(statement: str) -> set[str]:
    """The modules that a new interpreter has imported after a statement."""
    code = f"import json, sys; {statement}; print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not set(HEAVY) & modules_after("import lis2_lightning")


def test_importing_the_base_leaves_torch_alone() -> None:
    names = sorted(path.stem for path in (PACKAGE / "base").glob("[!_]*.py"))
    assert "labelled" in names
    imports = "import " + ", ".join(f"lis2_lightning.base.{name}" for name in names)
    assert not set(HEAVY) & modules_after(imports)


def test_no_two_modules_have_one_name_or_differ_by_an_s() -> None:
    names = [path.stem for path in PACKAGE.rglob("[!_]*.py")]
    names += [room.name for room in ROOMS if room != PACKAGE]
    repeated = {
        name for name, count in Counter(n.removesuffix("s") for n in names).items() if count > 1
    }
    assert repeated <= KNOWN_PAIRS


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_a_room_says_in_one_line_what_is_in_it(room: Path) -> None:
    docstring = ast.get_docstring(ast.parse((room / "__init__.py").read_text("utf-8")))
    assert docstring
    assert len(docstring.splitlines()) == 1 or room.name in LONG_DOCSTRINGS


@pytest.mark.parametrize("name", lis2_lightning.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(lis2_lightning, name)
    assert name == "__version__" or value.__doc__


def test_all_is_sorted_and_complete() -> None:
    assert lis2_lightning.__all__ == sorted(set(lis2_lightning.__all__))
    assert dir(lis2_lightning) == lis2_lightning.__all__
    assert set(lis2_lightning._LATE) < set(lis2_lightning.__all__)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Trainr"):
        lis2_lightning.Trainr  # noqa: B018
