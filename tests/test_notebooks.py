"""The notebooks run from a clean kernel, and their saved outputs are those of such a run.

``python tests/test_notebooks.py`` runs them and saves them with their outputs.
"""

from __future__ import annotations

import re
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def read(path: Path) -> Any:
    """A notebook as nbformat gives it."""
    return pytest.importorskip("nbformat").read(path, as_version=4)


def execute(path: Path, folder: Path) -> Any:
    """Run all cells from a clean kernel, in a folder; a cell that fails raises."""
    client = pytest.importorskip("nbclient")
    notebook = read(path)
    client.NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    ).execute()
    return notebook


def outputs(notebook: Any) -> list[Any]:
    """Everything that stands below the cells."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [output for cell in cells for output in cell.outputs]


def kinds(notebook: Any) -> list[list[str]]:
    """For each code cell, the kinds of data that it shows."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [sorted(kind for o in c.outputs for kind in o.get("data", {})) for c in cells]


def texts(notebook: Any) -> list[str]:
    """Every output as plain text."""
    return [
        output.text if output.output_type == "stream" else output.data.get("text/plain", "")
        for output in outputs(notebook)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_a_clean_kernel(path: Path, tmp_path: Path) -> None:
    notebook = execute(path, tmp_path)
    assert [o.text for o in outputs(notebook) if o.get("name") == "stderr"] == []
    assert kinds(notebook) == kinds(read(path))  # what is saved is what a run shows
    assert (tmp_path / "runs").is_dir()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_saved_outputs_are_whole_and_small(path: Path) -> None:
    notebook = read(path)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert {o.output_type for o in outputs(notebook)}.isdisjoint({"error"})
    assert [o.text for o in outputs(notebook) if o.get("name") == "stderr"] == []
    assert path.stat().st_size < 1_000_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_saved_training_is_one_table_with_a_curve(path: Path) -> None:
    pages = [o.data["text/html"] for o in outputs(read(path)) if "text/html" in o.get("data", {})]
    curves = [page for page in pages if "<polyline" in page]
    told = [text for text in texts(read(path)) if "parameters on cpu" in text]
    assert len(curves) == len(told) >= 1
    assert all(re.search(r"\d+ epochs? in \d\d:\d\d</pre>$", curve) for curve in curves)


def test_the_notebooks_are_those_that_the_documentation_names() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "01_quickstart",
        "02_your_own_image_and_model",
        "03_snapshots_and_resume",
        "04_large_image_and_folds",
        "05_from_lis2",
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_saved_outputs_name_no_folder_of_a_machine(path: Path) -> None:
    assert [
        text for text in texts(read(path)) if re.search(r"(^|\s)/(home|root|tmp|work)/", text)
    ] == []


def save(path: Path) -> None:
    """Run a notebook and save it with its outputs."""
    nbformat: Any = import_module("nbformat")
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(execute(path, Path(folder)), path)


if __name__ == "__main__":
    for path in NOTEBOOKS:
        save(path)
