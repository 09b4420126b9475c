"""Draw the rooms of the package and the imports between them when the documentation is built."""

from __future__ import annotations

import ast
import tomllib
from html import escape
from pathlib import Path
from typing import Final

import grimp

ROOT: Final = Path(__file__).parents[1]
PICTURE: Final = Path(__file__).parent / "_static" / "rooms.svg"
PACKAGE: Final = "lis2_lightning"
_WIDTH, _STEP, _HIGH, _BOX = 760, 74, 34, 112  # px
_STYLE: Final = """
text { font: 14px sans-serif; text-anchor: middle; fill: #111 }
rect { fill: #eef3fa; stroke: #3b6ea5 }
path { fill: none; stroke: #3b6ea5; stroke-opacity: .6 }
@media (prefers-color-scheme: dark) {
  text { fill: #eee } rect { fill: #1d2a3a; stroke: #8ab4e8 } path { stroke: #8ab4e8 }
}"""


def layers() -> list[list[str]]:
    """The rooms of each layer, the highest first, as the contract in pyproject.toml has them."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (contract,) = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    return [layer.replace("|", ":").replace(" ", "").split(":") for layer in contract["layers"]]


def imports() -> dict[tuple[str, str], int]:
    """How many modules of a room import another room, by importer and imported."""
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True, cache_dir=None)
    counts: dict[tuple[str, str], int] = {}
    for module in graph.modules:
        room = _room(module)
        others = {_room(name) for name in graph.find_modules_directly_imported_by(module)}
        for other in others - {room, ""} if room else ():
            counts[room, other] = counts.get((room, other), 0) + 1
    return counts


def direct(counts: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """The imports that do not follow from others: without those of a room's rooms' rooms."""
    below: dict[str, set[str]] = {}
    for upper, lower in counts:
        below.setdefault(upper, set()).add(lower)

    def reached(room: str) -> set[str]:
        return set().union(*({lower} | reached(lower) for lower in below.get(room, ())))

    further = {upper: set().union(*map(reached, lower)) for upper, lower in below.items()}
    return {pair: count for pair, count in counts.items() if pair[1] not in further[pair[0]]}


def _room(module: str) -> str:
    return module.removeprefix(PACKAGE).lstrip(".").partition(".")[0]


def purpose(room: str) -> str:
    """The first line of a room's docstring."""
    path = ROOT / PACKAGE / room / "__init__.py"
    path = path if path.is_file() else ROOT / PACKAGE / f"{room}.py"
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]


def svg() -> str:
    """The picture: a row for each layer, a line for each import that no others imply."""
    places = {}
    for row, rooms in enumerate(layers()):
        for column, room in enumerate(rooms):
            places[room] = _WIDTH * (2 * column + 1) / (2 * len(rooms)), 30 + row * _STEP
    lines, boxes = [], []
    for (upper, lower), count in sorted(direct(imports()).items()):
        (x1, y1), (x2, y2) = places[upper], places[lower]
        bend = 40 + 0.16 * (y2 - y1) if abs(x1 - x2) < 1 and y2 - y1 > _STEP else 0
        way = f"M{x1:.0f} {y1 + _HIGH / 2:.0f} Q{(x1 + x2) / 2 + bend:.0f} {(y1 + y2) / 2:.0f}"
        title = f"{count} module{'s' * (count > 1)} of {upper} import {lower}"
        lines.append(
            f'<path d="{way} {x2:.0f} {y2 - _HIGH / 2:.0f}" stroke-width="{0.8 + count**0.5:.1f}">'
            f"<title>{title}</title></path>"
        )
    for room, (x, y) in places.items():
        boxes.append(
            f'<g><title>{escape(purpose(room))}</title><rect x="{x - _BOX / 2:.0f}" '
            f'y="{y - _HIGH / 2:.0f}" width="{_BOX}" height="{_HIGH}" rx="6"/>'
            f'<text x="{x:.0f}" y="{y + 5:.0f}">{room}</text></g>'
        )
    size = f"0 0 {_WIDTH} {30 + len(layers()) * _STEP - _STEP // 2}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}"><style>{_STYLE}</style>'
    return "\n".join([head, *lines, *boxes, "</svg>\n"])


def write_picture() -> None:
    """Write ``_static/rooms.svg``."""
    PICTURE.write_text(svg(), encoding="utf-8")
