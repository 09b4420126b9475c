"""Make a page of each notebook, with its saved outputs, when the documentation is built."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, Final

NOTEBOOKS: Final = Path(__file__).parents[1] / "notebooks"
PAGES: Final = Path(__file__).with_name("tutorials")
_PICTURES: Final = {"image/svg+xml": "svg", "image/png": "png", "image/jpeg": "jpg"}


def write_pages() -> None:
    """Write ``tutorials/NAME.md`` for each notebook, and its pictures beside it."""
    PAGES.mkdir(exist_ok=True)
    paths = sorted(NOTEBOOKS.glob("*.ipynb"))
    for page in PAGES.iterdir():
        if page.name.partition(".")[0] not in {path.stem for path in paths}:
            page.unlink()
    for path in paths:
        text, pictures = page_of(json.loads(path.read_text(encoding="utf-8")), path.stem)
        for name, content in {f"{path.stem}.md": text.encode(), **pictures}.items():
            place = PAGES / name
            if not place.exists() or place.read_bytes() != content:  # Sphinx builds what is newer
                place.write_bytes(content)


def page_of(notebook: dict[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by the names of their files."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source.replace(".ipynb)", ".md)"))  # links to other notebooks
        elif source:
            parts.append(_fenced("python", source))
        for output in _joined(cell.get("outputs", ())):
            parts += _output(output, name, pictures)
    return "\n\n".join(parts) + "\n", pictures


def _joined(outputs: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Outputs, of which the lines printed one after another are a single one."""
    for is_printed, group in groupby(outputs, _is_printed):
        if is_printed:
            yield {"text": [part for output in group for part in _printed(output)]}
        else:
            yield from group


def _is_printed(output: dict[str, Any]) -> bool:
    """Whether an output is text as from ``print``; a bar that is done is a line of its own."""
    is_bar = output["output_type"] == "display_data" and [*output["data"]] == ["text/plain"]
    return is_bar or output["output_type"] == "stream"


def _printed(output: dict[str, Any]) -> list[str]:
    return output["text"] if "text" in output else [*output["data"]["text/plain"], "\n"]


def _output(output: dict[str, Any], name: str, pictures: dict[str, bytes]) -> Iterator[str]:
    """What stands below a cell: a picture, HTML or text, the richest there is."""
    data = output.get("data", {})
    kind = next((kind for kind in _PICTURES if kind in data), None)
    if kind is not None:
        stored = "".join(data[kind])
        content = stored.encode() if kind == "image/svg+xml" else base64.b64decode(stored)
        picture = f"{name}.{len(pictures)}.{_PICTURES[kind]}"
        pictures[picture] = content
        yield f"![What the cell above draws.]({picture})"
    elif "text/html" in data:
        yield _fenced("{raw} html", f'<div class="output">{"".join(data["text/html"])}</div>')
    elif text := "".join(output.get("text") or data.get("text/plain", "")):
        yield _fenced("text", text.rstrip())


def _fenced(language: str, text: str) -> str:
    return f"````{language}\n{text}\n````"
