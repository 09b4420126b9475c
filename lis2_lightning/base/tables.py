"""Names and values as aligned lines, and as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lis2_lightning.base.files import atomic


def table(rows: Mapping[str, Any]) -> str:
    """A line for each name, with its value in a second column; floats get six decimals.

    >>> print(table({"loss": 0.25, "num_epochs": 3}))
    loss        0.250000
    num_epochs  3
    """
    width = max(map(len, rows), default=0) + 2
    texts = {
        name: f"{value:.6f}" if isinstance(value, float) else value for name, value in rows.items()
    }
    return "\n".join(f"{name:<{width}}{text}" for name, text in texts.items())


def columns(lines: Sequence[Sequence[str]], *, align: str = "<") -> list[str]:
    """Texts under each other, two spaces apart, each column as wide as its longest text.

    >>> columns([["trial", "value"], ["12", "0.5"]])
    ['trial  value', '12     0.5']
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            f"{text:{align}{width}}" for text, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    ]


def write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write rows, the first of which names the columns, at once; null is an empty field."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with atomic(path) as file:
        file.write(text.getvalue().encode())
