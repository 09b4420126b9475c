"""The files that others read of the project: citation and container."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

import lis2_lightning

ROOT = Path(__file__).parents[1]


def test_the_citation_names_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == lis2_lightning.__version__
    assert citation["license"] == project["license"]
    assert citation["authors"] == project["authors"]


def test_the_container_is_built_of_files_that_are_there_with_extras_that_exist() -> None:
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    copied = [
        name for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for name in line.split()
    ]
    let_in = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert copied
    assert all((ROOT / name).exists() and f"!{name}" in let_in for name in copied)
    (extras,) = re.findall(r"/src\[(.+?)\]", text)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    (python,) = re.findall(r"^FROM python:([\d.]+)", text, re.MULTILINE)
    assert f"with Python {python}." in (ROOT / "constraints.txt").read_text(encoding="utf-8")
