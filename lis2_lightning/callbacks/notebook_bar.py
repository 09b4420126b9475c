"""Progress in a notebook: one output that is overwritten, and still there when it is saved."""

from __future__ import annotations

from html import escape
from importlib import import_module
from io import StringIO
from typing import Any, Final

from lis2_lightning.base.tables import columns
from lis2_lightning.callbacks.terminal_bar import TerminalBar, shown_number

_ROWS: Final = 8  # of the table; the curve has every epoch
_WIDTH, _HEIGHT, _LEFT, _EDGE = 290, 110, 46, 12  # of the curve, px
# Okabe and Ito's blue and vermilion: told apart by everyone, on a light page and on a dark one
_COLOURS: Final = {"train_loss": "#0072b2", "val_loss": "#d55e00"}
_CELL: Final = 'style="text-align: right; padding: 1px 8px"'
Row = dict[str, float]


class NotebookBar(TerminalBar):
    """A bar below the cell; epochs make a table above it, with a curve of their losses.

    tqdm's own for notebooks is a widget, of which a saved notebook shows nothing.
    """

    def __init__(self, **options: Any) -> None:
        self._rows: list[Row] = []
        self._best = 0
        display = import_module("IPython.display").display  # it is there in a notebook only
        self._output = display({"text/plain": ""}, raw=True, display_id=True)
        super().__init__(**options, ncols=80, file=StringIO(), ascii=False)

    def add(self, row: Row, *, is_best: bool) -> None:
        """Add an epoch, whose number is ``epoch``."""
        self._rows.append(row)
        if is_best:
            self._best = len(self._rows) - 1
        self.refresh()

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw everything anew; it stays when the bar is closed."""
        if msg is None:
            self._output.update(self._pictured(str(self)), raw=True)

    def close(self) -> None:
        """Stop; one short line says what was done, and how long it took."""
        if not self.disable and (self._rows or self.n == self.total):
            took = self.format_interval(self.format_dict["elapsed"])
            num = f"{len(self._rows)} epoch{'s' * (len(self._rows) > 1)}"
            num = num if self._rows else f"{self.desc}done"
            self._output.update(self._pictured(f"{num} in {took}"), raw=True)
        super().close()

    def _pictured(self, line: str) -> dict[str, str]:
        """The output as a page and as plain text."""
        if not self._rows:
            return {"text/plain": line}
        last = range(max(0, len(self._rows) - _ROWS), len(self._rows))
        numbers = [self._best, *last] if self._best < last[0] else list(last)
        names = list(self._rows[-1])
        cells = [[shown_number(n, self._rows[i].get(n)) for n in names] for i in numbers]
        marks = ["best" if number == self._best else "" for number in numbers]
        return {
            "text/plain": _text(names, cells, marks, line),
            "text/html": self._page(names, cells, marks, line),
        }

    def _page(self, names: list[str], cells: list[list[str]], marks: list[str], line: str) -> str:
        head = "".join(f"<th {_CELL}>{escape(name)}</th>" for name in [*names, ""])
        body = "".join(
            f"<tr>{''.join(f'<td {_CELL}>{escape(cell)}</td>' for cell in [*row, mark])}</tr>"
            for row, mark in zip(cells, marks, strict=True)
        )
        return (
            '<div style="display: flex; flex-wrap: wrap; gap: 1.5em; align-items: flex-start">'
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"{curve(self._rows)}</div><pre>{escape(line)}</pre>"
        )


def _text(names: list[str], cells: list[list[str]], marks: list[str], line: str) -> str:
    lines = columns([names, *cells], align=">")
    marked = [f"{text}  {mark}".rstrip() for text, mark in zip(lines, ["", *marks], strict=True)]
    return "\n".join([*marked, line])


def curve(rows: list[Row]) -> str:
    """The losses of epochs as a small SVG, in the colour of the page's text but for the lines."""
    lines = {name: [(row["epoch"], row[name]) for row in rows if name in row] for name in _COLOURS}
    values = [value for line in lines.values() for _, value in line]
    low, high = min(values), max(values)
    first, last = rows[0]["epoch"], rows[-1]["epoch"]

    def place(epoch: float, value: float) -> str:
        x = _LEFT + 6 + (_WIDTH - _LEFT - 18) * (epoch - first) / ((last - first) or 1)
        y = _EDGE + (_HEIGHT - 2 * _EDGE) * (high - value) / ((high - low) or 1)
        return f"{x:.1f},{y:.1f}"

    drawn, keys = "", ""
    for (name, line), colour in zip(lines.items(), _COLOURS.values(), strict=True):
        if line:
            points = " ".join(place(*point) for point in line)
            x, y = points.split()[-1].split(",")
            drawn += f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
            drawn += f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>'
            keys += f'<tspan fill="{colour}">— {name} </tspan>'
    epochs = f"epochs {first:.0f} to {last:.0f}" if last > first else f"epoch {first:.0f}"
    ends = f"{high:.3g} at the top, {low:.3g} at the bottom"
    return (
        f'<svg role="img" aria-label="losses by epoch, {ends}" width="{_WIDTH}" '
        f'height="{_HEIGHT + 34}" font-size="11" fill="currentColor">{drawn}'
        f'<path d="M{_LEFT} 4V{_HEIGHT}H{_WIDTH - 4}" fill="none" stroke="currentColor"/>'
        f'<g text-anchor="end"><text x="{_LEFT - 5}" y="{_EDGE + 4}">{high:.3g}</text>'
        f'<text x="{_LEFT - 5}" y="{_HEIGHT - _EDGE + 4}">{low:.3g}</text></g>'
        f'<text x="{_LEFT}" y="{_HEIGHT + 13}">{keys}</text>'
        f'<text x="{_WIDTH - 4}" y="{_HEIGHT + 13}" text-anchor="end">{epochs}</text></svg>'
    )
