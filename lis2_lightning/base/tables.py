"""Names and values as aligned lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
