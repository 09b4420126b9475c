"""The page on the configuration says what the signature and the tables say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from lis2_lightning import Trainer
from lis2_lightning.config import Schema
from lis2_lightning.config.names import TABLES, names

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """What writes the page."""
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_would_be_written_now(reference: ModuleType) -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert reference.page(text) == text, "run: python docs/reference.py"


def test_the_page_has_every_key_and_every_name() -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert all(f"| `{key}`" in text for key in Schema(Trainer).keys)
    assert all(f"`{name}`" in text for kind in TABLES for name in names(kind))
