"""What the documentation makes of the notebooks and of the imports."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree as ET

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def script(name: str) -> ModuleType:
    """A script that Sphinx's configuration imports."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_page_has_the_cells_of_a_notebook_with_the_richest_of_their_outputs() -> None:
    outputs: list[dict[str, Any]] = [
        {"output_type": "stream", "text": ["one\n", "two\n"]},
        {"output_type": "display_data", "data": {"image/png": "AAEC", "text/plain": "<Image>"}},
        {"output_type": "execute_result", "data": {"text/html": ["<b>3</b>"], "text/plain": "3"}},
        {"output_type": "display_data", "data": {"image/svg+xml": ["<svg/>"]}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "words"]},
        {"cell_type": "code", "source": ["print(1)"], "outputs": outputs},
    ]
    text, pictures = script("notebooks").page_of({"cells": cells}, "first")
    assert pictures == {"first.0.png": b"\x00\x01\x02", "first.1.svg": b"<svg/>"}
    assert text.startswith(
        "# Title\nwords\n\n````python\nprint(1)\n````\n\n````text\none\ntwo\n````"
    )
    assert '<div class="output"><b>3</b></div>' in text
    assert text.index("(first.0.png)") < text.index("<b>3</b>") < text.index("(first.1.svg)")
    assert "<Image>" not in text


def test_an_import_that_others_imply_is_not_drawn() -> None:
    pytest.importorskip("grimp")
    counts = {("a", "b"): 1, ("b", "c"): 2, ("c", "d"): 1, ("a", "c"): 3, ("a", "d"): 1}
    assert script("rooms").direct(counts) == {("a", "b"): 1, ("b", "c"): 2, ("c", "d"): 1}


def test_the_picture_has_every_room_once_and_every_line_leads_down() -> None:
    pytest.importorskip("grimp")
    rooms = script("rooms")
    heights = {room: row for row, layer in enumerate(rooms.layers()) for room in layer}
    drawn = ET.fromstring(rooms.svg())  # noqa: S314 - our own
    texts = [str(item.text) for item in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert sorted(texts) == sorted(heights)
    assert all(heights[upper] < heights[lower] for upper, lower in rooms.imports())
